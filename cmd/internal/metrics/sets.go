package metrics

import (
	"slices"

	"github.com/messenger-probe/messenger-probe/probe"
)

// Unknown is what a state, a mechanism or a confidence outside its closed set
// is shown as, and the state of a function before its first verdict.
const Unknown = "unknown"

// The closed sets of label values that package probe does not have.
var (
	states        = []string{"ok", "degraded", "blocked", "unreachable", Unknown}
	vantageStates = []string{"online", "offline", "whitelist", "impaired"}
	confidences   = []string{"low", "medium", "high", "confirmed"}
	explanations  = []string{"vantage", "resolver", "udp", "path", "endpoint", "server"}
	mechanisms    = []string{"dns_omission", "dns_injection", "dns_hijack", "dns_forgery", "dns_drop",
		"ip_block", "port_block", "tcp_reset", "sni_reset", "sni_drop", "sni_delayed_drop",
		"tls_mitm", "tls_fingerprint", "http_stub", "freeze", "throttling", "packet_loss",
		"quic_block", "quic_sni_block", "udp_block", "protocol_block", "call_block",
		"service_outage", Unknown}

	// scopes of the onset detector; besides these, kind:NAME with a name of
	// the catalogue. otherScope is any other.
	scopes     = []string{"all", "net", "conn", "tls", "dns", "calls"}
	scopeKinds = []string{"endpoint", "pool", "function"}
	otherScope = "other"
)

// among is s where set has it, else Unknown.
func among(set []string, s string) string {
	if slices.Contains(set, s) {
		return s
	}
	return Unknown
}

// protocols is the operations that every check of a protocol has, in order, but
// for the lookup of a name.
var protocols = map[string][]probe.Op{
	probe.ProtoDNS:       {probe.OpResolve},
	probe.ProtoTCP:       {probe.OpConnect},
	probe.ProtoTLS:       {probe.OpConnect, probe.OpTLSHandshake},
	probe.ProtoQUIC:      {probe.OpQUICHandshake},
	probe.ProtoHTTP:      {probe.OpRequest, probe.OpReply},
	probe.ProtoWebSocket: {probe.OpConnect, probe.OpTLSHandshake, probe.OpRequest},
	probe.ProtoMTProto:   {probe.OpConnect, probe.OpRequest, probe.OpReply},
	probe.ProtoNoise:     {probe.OpConnect, probe.OpRequest, probe.OpReply},
	probe.ProtoOneMe:     {probe.OpConnect, probe.OpTLSHandshake, probe.OpRequest, probe.OpReply},
	probe.ProtoSTUN:      {probe.OpReply},
	probe.ProtoTransfer:  {probe.OpConnect, probe.OpTLSHandshake, probe.OpTransfer},
}

// operations is what a run of c does.
func operations(c *probe.Check) []probe.Op {
	ops := slices.Clone(protocols[c.Protocol])
	asked := c.Prober
	if p, ok := asked.(probe.ByName); ok {
		asked = p.Ask
		ops = append(ops, probe.OpResolve)
	}
	switch p := asked.(type) {
	case probe.HTTP:
		switch {
		case p.Version == "3":
			ops = append(ops, probe.OpQUICHandshake)
		case p.Plain:
			ops = append(ops, probe.OpConnect)
		default:
			ops = append(ops, probe.OpConnect, probe.OpTLSHandshake)
		}
	case probe.MTProto:
		if p.Transport == "websocket" {
			ops = append(ops, probe.OpTLSHandshake)
		}
	case probe.Noise:
		if p.Over == "websocket" {
			ops = append(ops, probe.OpTLSHandshake)
		}
	case probe.STUN:
		if p.Burst > 0 {
			ops = append(ops, probe.OpTransfer)
		}
	}
	return ops
}

// reasons is what can void a run of c.
func reasons(c *probe.Check) []probe.Reason {
	rs := []probe.Reason{probe.ReasonLocal, probe.ReasonCancelled, probe.ReasonPanic,
		probe.ReasonOffline, probe.ReasonWhitelist, probe.ReasonImpaired}
	if c.Informational || c.Private {
		rs = append(rs, probe.ReasonInformational)
	}
	if c.Family == probe.IP6 {
		rs = append(rs, probe.ReasonNoAddress)
	}
	if c.Protocol == probe.ProtoDNS {
		rs = append(rs, probe.ReasonResolver)
	}
	return rs
}

// signs is the failures whose series exist from the start, by the operation
// that fails so. Silence is the normal signature of censorship; what else is
// here is how servers and injected packets refuse at that operation.
var signs = map[probe.Op][]probe.Failure{
	probe.OpResolve:       {probe.FailureTimeout, probe.FailureDNSNXDOMAIN},
	probe.OpConnect:       {probe.FailureTimeout, probe.FailureConnectionRefused},
	probe.OpTLSHandshake:  {probe.FailureTimeout, probe.FailureConnectionReset},
	probe.OpQUICHandshake: {probe.FailureTimeout},
	probe.OpRequest:       {probe.FailureTimeout},
	probe.OpReply:         {probe.FailureTimeout, probe.FailureConnectionReset},
	probe.OpTransfer:      {probe.FailureTimeout},
}

var (
	// stepBuckets are in seconds. 1 and 3 are there because the first SYN is
	// repeated after 1 s and again after 3 s (RFC 6298 §2), so that connects
	// which lost one or two fall between them. The native histogram is the
	// finer one.
	stepBuckets = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 3, 10}
	// lagBuckets are in seconds; a schedule is late from a quarter on.
	lagBuckets = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 3, 10, 30}
)
