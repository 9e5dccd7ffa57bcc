package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/comparator"
	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// What one agent writes another one understands, for as long as it listens.
func TestHeardAbroad(t *testing.T) {
	began := time.Now().Add(-7 * time.Second)
	check := probe.Check{Messenger: "alpha", Function: "chat", Endpoint: "e", Protocol: probe.ProtoTLS, Family: probe.IP4}
	said := agent.Snapshot{
		Vantage:  verdict.Vantage{State: verdict.Online},
		Verdicts: []verdict.Verdict{{Messenger: "alpha", Function: "chat", State: verdict.Degraded, Mechanism: verdict.Freeze, Confidence: verdict.Low}, {Messenger: "alpha", Function: "web", State: verdict.Unknown}},
		Results: []probe.Result{
			{Check: check, Start: began, Steps: []probe.Step{{Op: probe.OpTLSHandshake}}},
			{Check: check, Start: began, Void: probe.ReasonInformational, Steps: []probe.Step{{Op: probe.OpTLSHandshake, Failure: probe.FailureTimeout}}},
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		said.Time = time.Now()
		doc := document(build{Version: "1"}, &config.Loaded{}, said)
		if err := doc.Write(w); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	heard := make(chan []agent.Report, 1)
	c, err := comparator.New([]comparator.Agent{{Name: "de", URL: s.URL}}, comparator.Options{
		Log:   slog.New(slog.DiscardHandler),
		Heard: func(rs []comparator.Report) { heard <- reports(rs) },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{}
	d.listen(c)
	var got []agent.Report
	select {
	case got = <-heard:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was heard")
	}
	d.listen(nil)
	near := cmp.Comparer(func(x, y time.Time) bool { return x.Sub(y).Abs() < 3*time.Second })
	want := []agent.Report{{
		Name: "de", Time: time.Now(), Until: time.Now().Add(12 * time.Second),
		States: map[[2]string]verdict.Abroad{{"alpha", "chat"}: {State: verdict.Degraded, Mechanism: verdict.Freeze}, {"alpha", "web"}: {State: verdict.Unknown}},
		Sightings: []agent.Sighting{{Reference: agent.Reference{Messenger: "alpha", Function: "chat", Endpoint: "e", Check: "tls", Family: "ip4"},
			OK: true, Time: began}},
	}}
	if d := cmp.Diff(want, got, near); d != "" {
		t.Error(d)
	}
	if d.deafen != nil {
		t.Error("it still listens")
	}
}
