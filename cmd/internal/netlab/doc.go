// Package netlab is a small internet in kernel namespaces, for tests alone:
// real servers of Debian's packages in one namespace, any number of vantages in
// others, and between each vantage and the servers a middlebox that can do what
// censors and broken lines do.
//
//	vantage namespace ── tun ── Middlebox (this process) ── tun ── server namespace
//
// There is no way from it to anywhere else. It needs root, Linux with TUN, and
// the packages that [Tools] names.
package netlab
