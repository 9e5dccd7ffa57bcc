// Package validate holds tests alone: the files of deploy/ for Compose and for
// Kubernetes, read by the code that reads them when they are used. Compose's own
// loader takes the Compose files, the types of Kubernetes decode the manifests
// strictly, and the admission code of Pod Security judges the pod.
//
// It is a module of its own, so that the program does not carry these
// dependencies. What has a tool in Debian (promtool, amtool, systemd-analyze) is
// tested by cmd/messenger-probe.
package validate
