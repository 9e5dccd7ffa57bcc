package verdict

import (
	"slices"
	"testing"
)

// TestOnsetIsNoLoss: with a block that begins, and with one that ends, every check
// works at one time and is silent at another. That is not a way that loses
// packets: the block is told all the time, and nothing after it.
func TestOnsetIsNoLoss(t *testing.T) {
	checks := town()
	for _, sc := range scenarios() {
		if sc.name != "ip_block" && sc.name != "sni_drop" && sc.name != "port_block everywhere" {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			w := newWorld(3)
			var d day
			d.vantage.State = Online
			for _, c := range checks {
				d.records = append(d.records, Record{Check: c})
			}
			look := func(rounds int) {
				for range rounds {
					for i := range d.records {
						r := &d.records[i]
						if res := byOtherResolver(w.run(r.Check)); len(res.Steps) > 0 {
							r.Note(&res)
							r.Results = slices.Insert(r.Results, 0, res)
							r.Results = r.Results[:min(len(r.Results), 3)]
						}
					}
				}
				for _, q := range Questions(d.vantage, d.records, 2, d.asked) {
					d.arms = append(d.arms, Arm{Of: q.Of, Ask: q.Ask, Result: w.run(q.Check)})
				}
				d.verdicts = Judge(d.vantage, d.records, d.arms)
			}
			look(3)
			if !d.meets(t, scenario{}, true) {
				t.Fatal("before")
			}
			w.effects = sc.effects
			look(2)
			for range 3 {
				if !d.meets(t, sc, true) {
					d.show(t)
					t.Fatal("blocked")
				}
				look(1)
			}
			w.effects = nil
			d.arms = nil
			for range 3 {
				look(1)
				if !d.meets(t, scenario{}, true) {
					d.show(t)
					t.Fatal("afterwards")
				}
			}
		})
	}
}
