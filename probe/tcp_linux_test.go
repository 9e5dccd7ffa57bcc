package probe

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/messenger-probe/messenger-probe/probe/probetest"
)

func TestTCP(t *testing.T) {
	full := listenFull(t)
	for _, test := range []struct {
		name string
		addr netip.AddrPort
		want string
	}{
		{"works", probetest.ServeTCP(t, probetest.Stall), "connect"},
		{"nobody listens", probetest.Refused(t), "connect connection_refused"},
		{"no answer to the SYN", full, "connect generic_timeout_error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			steps := run(t, TCP{}.At(test.addr), soon)
			if diff := cmp.Diff(test.want, story(steps)); diff != "" {
				t.Fatal(diff)
			}
			s := steps[0]
			if s.Addr != test.addr || s.Took <= 0 {
				t.Errorf("addr %v, took %v", s.Addr, s.Took)
			}
			if worked := s.Failure == ""; worked != (s.TCP != nil && s.TCP.SegsIn == 1) {
				t.Errorf("TCP_INFO %+v", s.TCP)
			}
		})
	}
}

// listenFull is a port whose queue of waiting connections is full: SYNs get no
// answer.
func listenFull(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a backlog of 0 takes one
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, sa); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	in := sa.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
}
