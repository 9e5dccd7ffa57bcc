//go:build !linux

package probe

import "net"

// tcpInfo is nil: only Linux tells what we need.
func tcpInfo(net.Conn) *TCPInfo { return nil }

// recvErr does nothing: elsewhere a closed UDP port looks like silence.
func recvErr(net.PacketConn) {}
