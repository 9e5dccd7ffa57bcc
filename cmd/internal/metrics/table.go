package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Row is one metric, as the README lists it.
type Row struct {
	Name   string
	Type   string // counter, gauge, histogram
	Labels []string
	Help   string
}

// Table is the agent's own metrics, in the README's order. Those of the Go
// runtime, of the process and of the scrape handler are not in it.
func Table() []Row { return New(Options{}).rows }

// definitions makes metrics, so that each is written down once: what is
// registered is what Table tells.
type definitions struct {
	reg  prometheus.Registerer
	rows []Row
}

func (d *definitions) add(kind, name, help string, labels []string) string {
	name = "messenger_probe_" + name
	d.rows = append(d.rows, Row{name, kind, labels, help})
	return name
}

// histogram has classic buckets, in seconds, and a native histogram beside
// them: each bucket 10 % wider than the one before, at most a hundred.
func (d *definitions) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            d.add("histogram", name, help, labels),
		Help:                            help,
		Buckets:                         buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, labels)
	d.reg.MustRegister(v)
	return v
}

// counter and gauge are shown by scrape.
func (d *definitions) counter(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(d.add("counter", name, help, labels), help, labels, nil)
}

func (d *definitions) gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(d.add("gauge", name, help, labels), help, labels, nil)
}
