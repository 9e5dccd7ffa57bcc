package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/messenger-probe/messenger-probe/probe"
)

// pty is a terminal: what a program writes to tty, a person reads from screen.
func pty(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

// On a terminal a person sees in one line how far a check is, and the line is
// gone when the table comes. NO_COLOR, or a terminal that knows no codes, gets
// neither.
func TestProgress(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	screen, tty := pty(t)
	p := &program{stderr: tty}
	show, done := p.progress()
	if show == nil || !terminal(tty) {
		t.Fatal("no progress on a terminal")
	}
	r := probe.Result{Check: probe.Check{Messenger: "max", Endpoint: "api", Protocol: probe.ProtoTLS}}
	show(1, 3, r)
	show(2, 3, r) // too soon after the first to be seen
	show(3, 3, r)
	done()
	b := make([]byte, 4096)
	n, err := screen.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	const clear = "\r\x1b[K"
	if got, want := string(b[:n]), clear+"1 of 3  max api tls"+clear+"3 of 3  max api tls"+clear; got != want {
		t.Errorf("the screen gets %q, want %q", got, want)
	}
	for name, value := range map[string]string{"NO_COLOR": "1", "TERM": "dumb"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if terminal(tty) {
				t.Error("gets codes")
			}
		})
	}
}
