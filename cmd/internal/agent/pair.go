package agent

import (
	"cmp"
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
)

// Limit changes how many bytes a day transfers may move; 0 is none.
func (a *Agent) Limit(bytesPerDay int64) { a.runner.Limit(bytesPerDay) }

// pair has the same asked of a control at the same time: only beside that is a
// transfer slow. Controls take turns, those that last worked before others.
func (a *Agent) pair(r *probe.Result) {
	q, ok := probe.Bare(r.Check.Prober).(probe.Transfer)
	if !ok || len(r.Steps) == 0 {
		return
	}
	var turn *verdict.Record
	for _, rec := range a.line.controls {
		c, ok := probe.Bare(rec.Check.Prober).(probe.Transfer)
		if !ok || !calibrates(&rec.Check) || rec.Check.Family != r.Check.Family ||
			cmp.Or(c.Direction, probe.Download) != cmp.Or(q.Direction, probe.Download) || c.Bytes != q.Bytes {
			continue
		}
		asked := a.line.asked(rec)
		if asked.After(r.Start.Add(-min(a.interval, time.Minute))) {
			return // just now
		}
		if turn == nil || well(rec) && !well(turn) || well(rec) == well(turn) && asked.Before(a.line.asked(turn)) {
			turn = rec
		}
	}
	if turn == nil {
		return
	}
	if id := turn.Check.ID(); a.runner.Request(id) {
		a.line.called[id] = r.Start
	}
}

// asked is when a control was last asked, or called for.
func (l *line) asked(rec *verdict.Record) time.Time {
	t := l.called[rec.Check.ID()]
	if len(rec.Results) > 0 && rec.Results[0].Start.After(t) {
		return rec.Results[0].Start
	}
	return t
}

// well says that a control worked when it was last asked.
func well(rec *verdict.Record) bool {
	return len(rec.Results) > 0 && rec.Results[0].Outcome() == probe.OK
}
