package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/state"
	"github.com/messenger-probe/messenger-probe/probe"
)

// FuzzRecall: whatever a state file says under a checksum that fits, the agent
// starts with it, shows what it has, and keeps it again.
func FuzzRecall(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-22T00:00:00Z","proven":["telegram/calls/relay/stun/ip4/x"],"functions":[{"messenger":"max","function":"chat","state":"blocked","mechanism":"sni_drop","confidence":"high","since":"2026-11-21T00:00:00Z","blocked":"2026-11-21T00:00:00Z"}]}`))
	f.Add([]byte(`{"functions":[{"messenger":"\xff","state":"ok","since":"0001-01-01T00:00:00Z"},{"messenger":"max","function":"chat","state":"ok"},null],"onset":"bWVzc2VuZ2VyLXByb2JlLW9uc2V0"}`))
	f.Add([]byte(`{"functions":{}}`))
	check := probe.Check{Messenger: "max", Function: "chat", Endpoint: "a", Protocol: probe.ProtoTCP, Family: probe.IP4, Interval: 1e9, Timeout: 1e9}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := fmt.Appendf(nil, `{"version":%d,"checksum":"%x","state":%s}`, state.Version, sha256.Sum256(b), b)
		if err := os.WriteFile(filepath.Join(dir, "state.json"), sealed, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := recall(dir)
		if err != nil {
			m = agent.Memory{} // as run does
		}
		a := agent.New(agent.Options{Net: &probe.Host{}, Log: slog.New(slog.DiscardHandler), Memory: m})
		a.Set([]probe.Check{check}, 1e9)
		doc := document(build{}, new(config.Loaded), a.Snapshot())
		if err := doc.Write(io.Discard); err != nil {
			t.Errorf("the status cannot be written: %v", err)
		}
		if err := keep(dir, a.Memory()); err != nil {
			t.Errorf("%q cannot be kept again: %v", b, err)
		}
		if _, err := recall(dir); err != nil {
			t.Errorf("%q cannot be recalled again: %v", b, err)
		}
	})
}
