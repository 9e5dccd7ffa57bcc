package verdict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/messenger-probe/messenger-probe/probe"
)

// What OONI Probe's tests of messengers say in these cases was found by running
// them against a censor: they share one deadline among all endpoints of a round,
// so that silence of some is taken for a failure of others; they average over
// data centres; and what no address answers is laid to HTTP
// (ooni/probe-cli internal/experiment/telegram, /whatsapp; ooni/probe#2466).

// TestWholeChatPool: with every chat server of WhatsApp silent, its web and its
// registration stay what they are.
func TestWholeChatPool(t *testing.T) {
	for name, checks := range map[string][]probe.Check{"town": town(), "catalogue": catalogue(t)} {
		for _, how := range []way{daily, once} {
			t.Run(fmt.Sprintf("%s/%s", name, how), func(t *testing.T) {
				w := worldOf(1, checks)
				pool := map[string]bool{}
				for _, c := range checks {
					if c.Messenger == "whatsapp" && c.Function == "chat" {
						if b, ok := c.Prober.(probe.ByName); ok {
							pool[b.Host] = true
						}
					}
				}
				w.effects = []effect{when(to("15.197.206.217 3.33.252.61 15.197.210.208 3.33.221.48"), drops), func(w *world, f *flow) (fate, bool) {
					for host := range pool {
						if slices.Contains(w.zone[host+"/"+family(f.addr.Addr())], f.addr.Addr()) {
							return fate{is: drops}, true
						}
					}
					return fate{}, false
				}}
				d := w.live(checks, how)
				expectation{"blocked|unreachable", "", Low, "on no port"}.check(t, "whatsapp/chat", d.of("whatsapp/chat"), true)
				for _, v := range d.verdicts {
					if v.Function != "chat" && v.State != OK {
						t.Errorf("%s/%s is %s by %s", v.Messenger, v.Function, v.State, v.Mechanism)
					}
				}
				if t.Failed() {
					d.show(t)
				}
			})
		}
	}
}

// dataCentres is the built-in address of each, and what else leads to it.
var dataCentres = [...]string{
	"149.154.175.50 149.154.175.53 2001:b28:f23d:f001::a",
	"149.154.167.51 149.154.167.41 2001:67c:4e8:f002::a",
	"149.154.175.100 2001:b28:f23d:f003::a",
	"149.154.167.91 2001:67c:4e8:f004::a",
	"149.154.171.5 91.108.56.191 91.108.56.130 2001:b28:f23f:f005::a",
}

// TestAllDataCentresButOne: four of Telegram's five data centres gone is
// degraded, whichever is left, and the evidence says which and how many.
func TestAllDataCentresButOne(t *testing.T) {
	for name, checks := range map[string][]probe.Check{"town": town(), "catalogue": catalogue(t)} {
		for left := range dataCentres {
			for _, how := range []way{daily, once} {
				t.Run(fmt.Sprintf("%s/dc%d left/%s", name, left+1, how), func(t *testing.T) {
					gone := strings.Join(slices.Delete(slices.Clone(dataCentres[:]), left, left+1), " ")
					w := worldOf(1, checks)
					w.effects = []effect{when(to(gone), drops)}
					d := w.live(checks, how)
					expectation{Degraded, IPBlock, Low, "answer"}.check(t, "telegram/chat", d.of("telegram/chat"), true)
					for _, v := range d.verdicts {
						if v.Function != "chat" && v.State != OK {
							t.Errorf("%s/%s is %s by %s", v.Messenger, v.Function, v.State, v.Mechanism)
						}
					}
					if t.Failed() {
						d.show(t)
					}
				})
			}
		}
	}
}

// TestBlackholeIsNotHTTP: addresses that answer nothing are not laid to HTTP or
// to any protocol.
func TestBlackholeIsNotHTTP(t *testing.T) {
	for name, checks := range map[string][]probe.Check{"town": town(), "catalogue": catalogue(t)} {
		for _, how := range []way{daily, once} {
			t.Run(fmt.Sprintf("%s/%s", name, how), func(t *testing.T) {
				w := worldOf(1, checks)
				w.effects = []effect{when(to(strings.Join(dataCentres[:], " ")), drops)}
				d := w.live(checks, how)
				v := d.of("telegram/chat")
				expectation{"blocked|unreachable", "", Low, "on no port"}.check(t, "telegram/chat", v, true)
				if v.Mechanism != IPBlock && v.Mechanism != UnknownCause {
					t.Errorf("it is laid to %s", v.Mechanism)
				}
			})
		}
	}
}

// TestStatusCodes: an answer over the messenger's certificate is reachability,
// whatever its code: WhatsApp once changed a redirect for a 403, and the whole
// world was blocked (ooni/probe#2382).
func TestStatusCodes(t *testing.T) {
	for _, code := range []int64{302, 400, 403, 404, 429, 500, 503} {
		w := newWorld(1)
		w.effects = []effect{when(under(waNames...), errs, code)}
		d := w.live(town(), daily)
		for _, v := range d.verdicts {
			// A WebSocket that is refused is a fault, but no more than that.
			if v.State != OK && !(v.State == Degraded && v.Messenger == "whatsapp") {
				t.Errorf("%d: %s/%s is %s by %s", code, v.Messenger, v.Function, v.State, v.Mechanism)
				d.show(t)
			}
		}
	}
}
