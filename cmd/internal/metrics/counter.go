package metrics

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// counter is one counter. Unlike client_golang's it shares its labels with its
// neighbours: most of some ten thousand series stay at 0 for ever, and cost a
// tenth of the memory so.
type counter struct {
	desc  *prometheus.Desc
	pairs []*dto.LabelPair // sorted by name
	since *timestamppb.Timestamp
	n     atomic.Int64
}

func newCounter(desc *prometheus.Desc, since *timestamppb.Timestamp, pairs ...[]*dto.LabelPair) *counter {
	c := &counter{desc: desc, pairs: slices.Concat(pairs...), since: since}
	slices.SortFunc(c.pairs, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return c
}

func (c *counter) add(n int64) { c.n.Add(max(n, 0)) }

// Desc and Write make it a [prometheus.Metric].
func (c *counter) Desc() *prometheus.Desc { return c.desc }

func (c *counter) Write(m *dto.Metric) error {
	m.Label = c.pairs
	m.Counter = &dto.Counter{Value: new(float64(c.n.Load())), CreatedTimestamp: c.since}
	return nil
}

// label is one label, to be shared.
func label[S ~string](name string, value S) *dto.LabelPair {
	return &dto.LabelPair{Name: &name, Value: new(string(value))}
}

// words is the shared labels of a closed set.
func words[S ~string](name string, set []S) map[S]*dto.LabelPair {
	m := make(map[S]*dto.LabelPair)
	for _, s := range set {
		m[s] = label(name, s)
	}
	return m
}
