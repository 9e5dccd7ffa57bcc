// Package probetest holds the servers and censors that tests ask: real
// protocols on loopback that do what a test tells them.
package probetest
