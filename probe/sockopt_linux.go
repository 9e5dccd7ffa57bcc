package probe

import (
	"crypto/tls"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tcpInfo reads the kernel's view of a connection (tcp(7), TCP_INFO), nil where
// it cannot be had. It works until the descriptor is closed, also after a reset.
func tcpInfo(conn net.Conn) *TCPInfo {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	raw, err := rawConn(conn)
	if err != nil {
		return nil
	}
	var ti *unix.TCPInfo
	err = raw.Control(func(fd uintptr) {
		ti, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || ti == nil {
		return nil
	}
	return &TCPInfo{
		BytesAcked:    ti.Bytes_acked,
		BytesReceived: ti.Bytes_received,
		SegsIn:        ti.Segs_in,
		SegsOut:       ti.Segs_out,
		Retransmits:   ti.Total_retrans,
		Needless:      min(ti.Dsack_dups, ti.Total_retrans),
		Unacked:       ti.Unacked,
		RTT:           time.Duration(ti.Rtt) * time.Microsecond,
		MinRTT:        time.Duration(ti.Min_rtt) * time.Microsecond,
		SinceData:     time.Duration(ti.Last_data_recv) * time.Millisecond,
		SinceAck:      time.Duration(ti.Last_ack_recv) * time.Millisecond,
		PMTU:          ti.Pmtu,
	}
}

// recvErr asks the kernel to report ICMP errors on an unconnected UDP socket
// (ip(7), IP_RECVERR; ipv6(7), IPV6_RECVERR), so that a closed port is
// ECONNREFUSED and not silence. A network without descriptors has no such thing.
func recvErr(conn net.PacketConn) {
	raw, err := rawConn(conn)
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		// Each fails on a socket of the other family, which is fine.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	})
}
