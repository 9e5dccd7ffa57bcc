//go:build linux

package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Namespace is a network of its own, with nothing in it but loopback.
type Namespace struct{ Name string }

// prefix is what the names of our namespaces begin with; the process and a
// number follow.
const prefix = "mpt-"

var made atomic.Int64

// newNamespace makes a namespace that lives as long as the test, with these
// name servers for who runs in it.
func newNamespace(tb testing.TB, nameServers ...netip.Addr) Namespace {
	tb.Helper()
	n := Namespace{fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), made.Add(1))}
	ip(tb, "netns add "+n.Name)
	tb.Cleanup(func() { remove(n.Name) })
	ip(tb, "-n "+n.Name+" link set lo up")
	if len(nameServers) > 0 {
		// ip-netns(8): exec lays the files in here over those of /etc.
		var conf strings.Builder
		for _, a := range nameServers {
			fmt.Fprintf(&conf, "nameserver %v\n", a)
		}
		if err := os.MkdirAll(n.etc(), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.etc(), "resolv.conf"), []byte(conf.String()), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return n
}

func (n Namespace) etc() string { return filepath.Join("/etc/netns", n.Name) }

// remove ends what still runs in a namespace of ours, and deletes it.
func remove(name string) {
	out, _ := exec.Command("ip", "netns", "pids", name).Output()
	for _, pid := range strings.Fields(string(out)) {
		if id, err := strconv.Atoi(pid); err == nil && id != os.Getpid() {
			syscall.Kill(id, syscall.SIGKILL)
		}
	}
	exec.Command("ip", "netns", "delete", name).Run()
	os.RemoveAll(Namespace{name}.etc())
	os.Remove("/etc/netns") // only where nobody else has anything in it
}

// sweep removes what processes left that were killed before they could.
func sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for l := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(l), " ")
		rest, ours := strings.CutPrefix(name, prefix)
		pid, _, _ := strings.Cut(rest, "-")
		id, err := strconv.Atoi(pid)
		if ours && err == nil && syscall.Kill(id, 0) == syscall.ESRCH {
			remove(name)
		}
	}
}

// ip runs ip(8) once for each line.
func ip(tb testing.TB, lines ...string) {
	tb.Helper()
	for _, l := range lines {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			tb.Fatalf("ip %s: %v: %s", l, err, out)
		}
	}
}

// Command is a program in the namespace. It takes signals and ends as if it had
// been started without.
func (n Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Unprivileged is a program in the namespace as user nobody, without any
// capability or a way to get one.
func (n Namespace) Unprivileged(name string, args ...string) *exec.Cmd {
	return n.Command("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all",
		"--inh-caps=-all", "--no-new-privs", name}, args...)...)
}

// do runs f in the namespace: sockets that it opens stay there.
func (n Namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with us
		ns, err := os.Open("/var/run/netns/" + n.Name)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// DialContext opens a connection from the namespace to an address.
func (n Namespace) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens in the namespace.
func (n Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket in the namespace.
func (n Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// tun makes a TUN device in the namespace.
func (n Namespace) tun(tb testing.TB, name string) *os.File {
	tb.Helper()
	var f *os.File
	if err := n.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("TUNSETIFF: %w", err)
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

// start runs a program until the test ends. One that ends by itself fails the
// test with what it said.
func start(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tb.Cleanup(func() {
		select {
		case err := <-ended:
			tb.Errorf("%v: %v\n%s", cmd.Args[4:], err, out.String())
		default:
			cmd.Process.Signal(syscall.SIGTERM)
			t := time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
			<-ended
			t.Stop()
		}
	})
}
