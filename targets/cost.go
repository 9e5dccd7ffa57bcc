package targets

import (
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// Bytes on the wire for one run of a check that works, both directions:
// payload as probe.Meter counted it against real servers, headers of IP, TCP and
// UDP, and with TLS some 1,500 for a certificate chain of usual length, which
// the servers measured did not have.
const (
	bytesDNS       = 170
	bytesDNSStream = 640 // over TCP
	bytesDNSTLS    = 6400
	bytesTCP       = 380
	bytesTLS       = 6300
	bytesTLSSmall  = 4900 // with a ClientHello in one segment
	bytesQUIC      = 9500
	bytesPing      = 1300
	bytesHTTP      = 7500 // the head alone
	bytesHTTPPlain = 1200
	bytesWebSocket = 7500
	bytesMTProto   = 700
	bytesProof     = 1300 // more, to server_DH_params_ok
	bytesNoise     = 900
	bytesOneMe     = 7500
	bytesSTUN      = 180 // and for each packet of a burst
)

// A check by name costs nothing where the name has no such address. Most have
// one IPv4 address, fewer a second, a third, a fourth; and half have IPv6.
var (
	slotShare = [...]float64{1, 0.3, 0.1, 0.1}
	ip6Share  = 0.5
)

// EstimateBytes is about how many bytes a day the checks cost. The estimate
// is for a vantage where everything answers.
func EstimateBytes(checks []probe.Check) int64 {
	var sum float64
	for _, c := range checks {
		n := cost(c.Prober)
		if c.Protocol == probe.ProtoTransfer && c.Messenger != probe.Control {
			n *= 2 // the same is asked of a control
		}
		sum += n * float64(24*time.Hour) / float64(c.Interval)
	}
	return int64(sum)
}

// cost is the bytes of one run.
func cost(p probe.Prober) float64 {
	switch p := p.(type) {
	case probe.ByName:
		share := slotShare[min(p.Slot, len(slotShare)-1)]
		if p.Family == probe.IP6 {
			share *= ip6Share
		}
		return cost(p.Ask) * share
	case probe.DNS:
		switch p.Server.Transport {
		case probe.OverTCP:
			return bytesDNSStream
		case probe.OverTLS, probe.OverHTTPS:
			return bytesDNSTLS
		}
		return bytesDNS
	case probe.TCP:
		return bytesTCP
	case probe.TLS:
		if p.Hello == probe.HelloX25519 {
			return bytesTLSSmall
		}
		return bytesTLS
	case probe.QUIC:
		return bytesQUIC
	case probe.QUICPing:
		return bytesPing
	case probe.WebSocket:
		return bytesWebSocket
	case probe.HTTP:
		switch {
		case p.Version == "3":
			return bytesQUIC + 500
		case p.Plain:
			return bytesHTTPPlain
		}
		return bytesHTTP
	case probe.Transfer:
		return bytesHTTP + 1.05*float64(max(p.Bytes, 64<<10))
	case probe.OneMe:
		return bytesOneMe
	case probe.STUN:
		return float64(bytesSTUN * (1 + p.Burst))
	case probe.MTProto:
		n := float64(bytesMTProto)
		if p.Transport == "websocket" {
			n += bytesWebSocket
		}
		if p.Prove {
			n += bytesProof
		}
		return n
	case probe.Noise:
		if p.Over == "websocket" {
			return bytesWebSocket + bytesNoise
		}
		return bytesNoise
	}
	return 0
}
