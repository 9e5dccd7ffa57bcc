package targets

import (
	"iter"
	"maps"
	"slices"

	"github.com/messenger-probe/messenger-probe/probe"
)

// A kind is what a check's name in the catalogue means.
type kind struct {
	protocol string // the label check
	// asks is what to ask of each address of an endpoint; nil for dns, which
	// asks resolvers (names.go).
	asks func(e *Endpoint, v *Vantage) []question
	// needs are the keys that an endpoint with this check must have, keys those
	// that it may have beside them. Keys that are not in this table are for all.
	needs, keys []string
	// transports are the words for an endpoint's transports, the usual one
	// first; none where the check has no choice.
	transports []string
}

// A question is one way to ask of an address.
type question struct {
	ask   probe.Addressed
	arm   string // tells the ways of one check apart; "" the usual one
	every int    // times the endpoint's own; 0 is 1
	// first: of a name's addresses only the first is asked.
	first bool
	// heavy: it has a TLS handshake and costs kilobytes. IPv6, and the second
	// and further addresses of a name, are asked a third as often.
	heavy bool
	// unproven: nothing says that the endpoint answers this, so that it counts
	// only from its first answer at this vantage on.
	unproven bool
}

// The words for transports, the usual one first.
var (
	mtprotoTransports = []string{"obfuscated2", "abridged", "intermediate", "padded", "http", "websocket"}
	noiseTransports   = []string{"raw", "websocket"}
	onemeTransports   = []string{probe.OneMeTLS, probe.OneMeJSON, probe.OneMeBinary}
)

// kinds is every check. A new protocol is one row here beside its prober.
var kinds = map[string]kind{
	"dns": {protocol: probe.ProtoDNS, keys: []string{"record"}},

	// Half as often: every other check of an address connects as well.
	"tcp": {protocol: probe.ProtoTCP, asks: func(*Endpoint, *Vantage) []question {
		return []question{{ask: probe.TCP{}, every: 2}}
	}},

	// Two ClientHellos: a filter that judges by the hello must not read as a
	// blocked messenger.
	"tls": {protocol: probe.ProtoTLS, needs: []string{"server_name"}, keys: []string{"alpn", "pins"},
		asks: func(e *Endpoint, v *Vantage) []question {
			q := probe.TLS{ServerName: e.serverName(), ALPN: e.ALPN, Hello: probe.HelloGo, Trust: v.trust(e)}
			if q.ALPN == nil {
				q.ALPN = []string{"h2", "http/1.1"}
			}
			small := q
			small.Hello = probe.HelloX25519
			return []question{
				{ask: q, heavy: true},
				{ask: small, arm: probe.HelloX25519, every: 8, first: true, heavy: true},
			}
		}},

	"quic": {protocol: probe.ProtoQUIC, needs: []string{"server_name", "h3"}, keys: []string{"pins"},
		asks: func(e *Endpoint, v *Vantage) []question {
			return []question{{ask: probe.QUIC{ServerName: e.serverName(), ALPN: []string{"h3"}, Trust: v.trust(e)}, every: 4, heavy: true,
				unproven: e.H3 != "yes"}}
		}},

	// What the apps send each time, and plainer forms more seldom: filters that
	// know the one do not all know the others.
	"mtproto": {protocol: probe.ProtoMTProto, keys: []string{"transports", "dc", "media", "test", "any_key", "prove", "fingerprints", "server_name", "path"},
		transports: mtprotoTransports,
		asks: func(e *Endpoint, v *Vantage) []question {
			var qs []question
			for i, t := range e.transports(mtprotoTransports) {
				q := question{arm: t, ask: probe.MTProto{Transport: t, DC: e.dc(), Fingerprints: e.fingerprints(), AnyKey: e.AnyKey,
					ServerName: e.serverName(), Path: e.Path, Trust: v.trust(e)}}
				if i > 0 {
					q.every = seldom
				}
				q.heavy = t == "websocket"
				q.first = q.heavy
				qs = append(qs, q)
				if i == 0 && e.Prove {
					// A centre may leave the key that clients ship for a new one.
					p := q.ask.(probe.MTProto)
					p.Prove = true
					qs = append(qs, question{ask: p, arm: "proof", every: 10 * seldom, heavy: q.heavy, first: q.first, unproven: true})
				}
			}
			return qs
		}},

	"noise": {protocol: probe.ProtoNoise, keys: []string{"transports", "server_name", "path", "origin"},
		transports: noiseTransports,
		asks: func(e *Endpoint, v *Vantage) []question {
			var qs []question
			for _, t := range e.transports(noiseTransports) {
				qs = append(qs, question{arm: t, heavy: t == "websocket", first: t == "websocket", ask: probe.Noise{Over: t, Root: v.NoiseRoot,
					ServerName: e.serverName(), Path: e.Path, Origin: e.Origin, Trust: v.trust(e)}})
			}
			return qs
		}},

	// Some filters let 16 to 20 kB pass, or a rate of some kB a second: more than
	// a handshake. A large transfer is for slow policing and comes seldom.
	"transfer": {protocol: probe.ProtoTransfer, needs: []string{"server_name"}, keys: []string{"path", "directions", "pins"},
		asks: func(e *Endpoint, v *Vantage) []question {
			var qs []question
			for _, d := range e.directions() {
				q := probe.Transfer{ServerName: e.serverName(), Path: e.Path, Direction: d, Trust: v.trust(e)}
				qs = append(qs, question{ask: q, arm: d, heavy: true, first: true})
				q.Bytes = 512 << 10
				arm := "large"
				if d == probe.Upload {
					arm = "large-upload"
				}
				qs = append(qs, question{ask: q, arm: arm, every: 24, heavy: true, first: true})
			}
			return qs
		}},

	// The least request: HEAD, unless the answer is told by its body. HTTP/3 too,
	// where the host is said to speak it.
	"http": {protocol: probe.ProtoHTTP, needs: []string{"server_name"}, keys: []string{"path", "method", "plain", "expect", "seen", "h3", "pins"},
		asks: func(e *Endpoint, v *Vantage) []question {
			q := probe.HTTP{ServerName: e.serverName(), Path: e.Path, Method: e.method(), Plain: e.Plain, Expect: probe.Expect(e.Expect), Seen: e.Seen, Trust: v.trust(e)}
			qs := []question{{ask: q, every: 5, heavy: true, first: true}}
			if e.H3 == "yes" || e.H3 == "unverified" {
				q.Version = "3"
				qs = append(qs, question{ask: q, arm: "h3", every: 10, heavy: true, first: true, unproven: e.H3 != "yes"})
			}
			return qs
		}},

	"oneme": {protocol: probe.ProtoOneMe, needs: []string{"server_name"}, keys: []string{"transports", "path", "origin", "pins"},
		transports: onemeTransports,
		asks: func(e *Endpoint, v *Vantage) []question {
			var qs []question
			for _, t := range e.transports(onemeTransports) {
				qs = append(qs, question{arm: t, every: 2, heavy: true, first: true, ask: probe.OneMe{Over: t,
					ServerName: e.serverName(), Path: e.Path, Origin: e.Origin, Trust: v.trust(e)}})
			}
			return qs
		}},

	"websocket": {protocol: probe.ProtoWebSocket, needs: []string{"server_name", "path"}, keys: []string{"origin", "subprotocol", "pins"},
		asks: func(e *Endpoint, v *Vantage) []question {
			return []question{{ask: probe.WebSocket{ServerName: e.serverName(), Path: e.Path, Origin: e.Origin, Subprotocol: e.Subprotocol, Trust: v.trust(e)}, every: 3, heavy: true, first: true}}
		}},

	// The first answer of a call server, in each of three languages, and now and
	// then a burst at the pace of a call: degraded calls answer the first packet.
	"stun": {protocol: probe.ProtoSTUN, asks: func(e *Endpoint, v *Vantage) []question {
		return []question{
			{ask: probe.STUN{Kind: probe.STUNBinding}},
			{ask: probe.STUN{Kind: probe.STUNBinding, Burst: 50}, arm: "burst", every: 20, first: true},
		}
	}},
	"turn": {protocol: probe.ProtoSTUN, keys: []string{"realm"}, asks: func(e *Endpoint, v *Vantage) []question {
		return []question{{ask: probe.STUN{Kind: probe.STUNTURN, Realm: e.Realm}, arm: "turn", every: 2}}
	}},
	"reflector": {protocol: probe.ProtoSTUN, asks: func(e *Endpoint, v *Vantage) []question {
		return []question{{ask: probe.STUN{Kind: probe.STUNReflector}, arm: "reflector"}}
	}},

	// quic-ping makes the server name its versions (RFC 9000 §6): no name, no
	// certificate, two packets.
	"quic-ping": {protocol: probe.ProtoQUIC, needs: []string{"h3"}, asks: func(e *Endpoint, v *Vantage) []question {
		return []question{{ask: probe.QUICPing{}, arm: "ping", unproven: e.H3 != "yes"}}
	}},
}

// seldom is how many times less often the further ways of a check are gone.
const seldom = 6

// transports is e's choice of the known ones, or the usual one.
func (e *Endpoint) transports(known []string) []string {
	if len(e.Transports) > 0 {
		return e.Transports
	}
	return known[:1]
}

// dc is the number by which a data centre is told which it is (gotd/td
// mtproxy/obfuscated2, tdlib/td td/mtproto/TcpTransport.cpp).
func (e *Endpoint) dc() int {
	n := e.DC
	if e.Test {
		n += 10000
	}
	if e.Media {
		n = -n
	}
	return n
}

func (e *Endpoint) fingerprints() []uint64 {
	var fs []uint64
	for _, f := range e.Fingerprints {
		fs = append(fs, uint64(f))
	}
	return fs
}

// directions is which way a transfer goes.
func (e *Endpoint) directions() []string {
	if len(e.Directions) > 0 {
		return e.Directions
	}
	return []string{probe.Download}
}

// method is the least that shows what is expected.
func (e *Endpoint) method() string {
	switch {
	case e.Method != "":
		return e.Method
	case len(e.Expect.JSON) > 0 || len(e.Expect.Contains) > 0 || e.Seen != "":
		return "GET"
	}
	return "HEAD"
}

// serverName is the name for the ClientHello.
func (e *Endpoint) serverName() string {
	if e.ServerName != "" {
		return e.ServerName
	}
	return e.Host
}

// private says that the certificate is of an authority of which only the hash
// is known.
func (e *Endpoint) private() bool { return len(e.Pins) > 0 }

// kindNames is every check's name, sorted.
func kindNames() []string { return slices.Sorted(maps.Keys(kinds)) }

// keysOfKinds is every key that only some checks heed.
func keysOfKinds() iter.Seq[string] {
	all := map[string]bool{}
	for _, k := range kinds {
		for _, key := range slices.Concat(k.needs, k.keys) {
			all[key] = true
		}
	}
	return maps.Keys(all)
}
