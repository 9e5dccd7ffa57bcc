package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the program as it is shipped.
func binary(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "messenger-probe")
	c := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return path
}

// running starts the agent with its defaults and any free port, and gives its
// address as soon as it says it.
func running(b *testing.B, path string) (c *exec.Cmd, addr string) {
	b.Helper()
	c = exec.CommandContext(b.Context(), path, "run", "--listen", "127.0.0.1:0")
	c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+b.TempDir())
	stderr, err := c.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	listens := regexp.MustCompile(`\blisten=(\S+)`)
	for lines.Scan() {
		if m := listens.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, stderr)
			return c, m[1]
		}
	}
	b.Fatalf("ended without a word on where it listens: %v", c.Wait())
	return nil, ""
}

// end stops the agent as a service manager does.
func end(b *testing.B, c *exec.Cmd) {
	b.Helper()
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		b.Error(err)
	}
}

// scrape reads /metrics and counts the series.
func scrape(b *testing.B, addr string) int {
	b.Helper()
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		b.Fatal(r.Status, err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}

// Both benchmarks run the agent as it is: where there is a network it asks the
// real endpoints.

// BenchmarkStart is the time from the start of the program to the first whole
// answer of /metrics; 500 ms is the limit.
func BenchmarkStart(b *testing.B) {
	path := binary(b)
	series := 0
	for b.Loop() {
		c, addr := running(b, path)
		series = scrape(b, addr)
		b.StopTimer()
		end(b, c)
		b.StartTimer()
	}
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N), "ms/start")
	if info, err := os.Stat(path); err == nil {
		b.ReportMetric(float64(info.Size())/1e6, "MB_binary")
	}
}

// BenchmarkMemory is what the agent holds while it measures the default
// catalogue, here where nobody answers; 30 MB is the limit when idle.
func BenchmarkMemory(b *testing.B) {
	path := binary(b)
	for b.Loop() {
		c, addr := running(b, path)
		for _, after := range []time.Duration{5 * time.Second, 65 * time.Second} {
			time.Sleep(after)
			scrape(b, addr)
			for _, what := range []string{"VmRSS", "VmHWM"} {
				b.ReportMetric(memory(b, c.Process.Pid, what), fmt.Sprintf("MB_%s_%.0fs", what, after.Seconds()))
			}
		}
		end(b, c)
	}
}

// memory reads a line of /proc/PID/status, in MB.
func memory(b *testing.B, pid int, what string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(what + `:\s+(\d+) kB`).FindStringSubmatch(string(text))
	if m == nil {
		b.Fatalf("no %s", what)
	}
	kb, _ := strconv.ParseFloat(m[1], 64)
	return kb * 1024 / 1e6
}
