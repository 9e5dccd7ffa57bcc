package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/events"
	"github.com/messenger-probe/messenger-probe/cmd/internal/history"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// writerDir names the state folder to a process that writes to it until it is
// killed.
const writerDir = "MPTEST_WRITER_DIR"

// began is the time of the first thing that is written.
var began = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestKilledWriter is no test but that process: as fast as it can it does what the
// agent does once an interval, and says after each time that it has.
func TestKilledWriter(t *testing.T) {
	dir := os.Getenv(writerDir)
	if dir == "" {
		return
	}
	m, err := recall(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if len(m.Functions) > 0 {
		n = int(m.Functions[0].Since.Sub(began) / time.Second)
	}
	complain := func(err error) { t.Error(err) }
	log, err := events.Open(dir, complain)
	if err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(dir, began)
	if err != nil {
		t.Fatal(err)
	}
	for {
		n++
		now := began.Add(time.Duration(n) * time.Second)
		log.Append(events.Event{Time: now, Messenger: "max", Function: "chat", State: "blocked", Was: "ok", Evidence: []string{strconv.Itoa(n)}})
		h.Record(now, "max", "chat", true, time.Second)
		if err := h.Save(); err != nil {
			t.Fatal(err)
		}
		if err := keep(dir, agent.Memory{Functions: []agent.Function{{Messenger: "max", Function: "chat", State: verdict.OK, Since: now}}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n)
	}
}

// TestE2EKilled kills a process that writes to its state folder at any moment, and
// wants it to start again each time, with no more lost than what was being
// written. It is killed 500 times where the kernel's tests are, else 20.
func TestE2EKilled(t *testing.T) {
	kills := 20
	if os.Getenv("NETLAB_REQUIRED") != "" {
		kills = 500
	}
	dir := t.TempDir()
	last := 0
	for i := range kills {
		c := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		c.Env = append(os.Environ(), writerDir+"="+dir)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		dying := false
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("kill %d: the writer does not start again: %s", i, lines.Text())
			}
			if n <= last {
				t.Fatalf("kill %d: it has written %d, and begins again at %d", i, last, n)
			}
			if last = n; !dying {
				dying = true
				time.AfterFunc(rand.N(10*time.Millisecond), func() { c.Process.Kill() })
			}
		}
		c.Wait()

		m, err := recall(dir)
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if got := int(m.Functions[0].Since.Sub(began) / time.Second); got < last || got > last+1 {
			t.Fatalf("kill %d: the state is of %d, and %d was written", i, got, last)
		}
		h, err := history.Open(dir, began)
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		sum := 0
		for _, s := range h.Read("max", "chat", began.Add(time.Duration(last)*time.Second), 24*time.Hour, 7) {
			sum += s.OK
		}
		// Each kill may have come between the history and the state, which then
		// counts anew.
		if sum < last || sum > last+i+1 {
			t.Fatalf("kill %d: the history counts %d, and %d was written", i, sum, last)
		}
		log, err := events.Open(dir, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		log.Close()
		if n := len(log.Recent()); n < min(last, events.Kept)-2*i-2 {
			t.Fatalf("kill %d: %d events, and %d were told", i, n, last)
		}
	}
	t.Logf("%d kills, %d times written", kills, last)
}
