//go:build unix

package probe

import (
	"testing"

	"github.com/miekg/dns"
)

// The observation window costs waiting, not CPU, so it is left out: what is
// compared is one exchange.
func BenchmarkDNS(b *testing.B) {
	peer := benchServer(b, "dns")
	client := dns.Client{UDPSize: 1232}
	pairing(b, func() {
		m := new(dns.Msg)
		m.SetQuestion(benchHost+".", dns.TypeA)
		m.SetEdns0(1232, false)
		r, _, err := client.Exchange(m, peer.Addr.String())
		if err != nil || len(r.Answer) != 2 {
			b.Fatal(r, err)
		}
	}, benchProber(b, DNS{Server: Server{Name: "bench", Transport: OverUDP, Addr: peer.Addr}, Host: benchHost, Window: -1}))
}
