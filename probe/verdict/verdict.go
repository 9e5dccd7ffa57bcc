// Package verdict says what results mean: first for the vantage, then for each
// function of each messenger. Its functions are pure: the same results always
// give the same verdict; there is no clock, no network and no memory in here.
package verdict

import (
	"time"

	"github.com/messenger-probe/messenger-probe/probe"
)

// State is what is said of one function of one messenger; a closed set.
type State string

const (
	OK          State = "ok"
	Degraded    State = "degraded"    // works for some endpoints, or slowly
	Blocked     State = "blocked"     // fails, and the evidence shows interference
	Unreachable State = "unreachable" // fails, and nothing tells interference from an outage
	Unknown     State = "unknown"     // too little, or the vantage is ill
)

// States is every State.
var States = [...]State{OK, Degraded, Blocked, Unreachable, Unknown}

// Mechanism is how a function is interfered with, or what else ails it; a
// closed set.
type Mechanism string

const (
	DNSOmission    Mechanism = "dns_omission"
	DNSInjection   Mechanism = "dns_injection"
	DNSHijack      Mechanism = "dns_hijack"
	DNSForgery     Mechanism = "dns_forgery"
	DNSDrop        Mechanism = "dns_drop"
	IPBlock        Mechanism = "ip_block"
	PortBlock      Mechanism = "port_block"
	TCPReset       Mechanism = "tcp_reset"
	SNIReset       Mechanism = "sni_reset"
	SNIDrop        Mechanism = "sni_drop"
	SNIDelayedDrop Mechanism = "sni_delayed_drop"
	TLSMITM        Mechanism = "tls_mitm"
	TLSFingerprint Mechanism = "tls_fingerprint"
	HTTPStub       Mechanism = "http_stub"
	Freeze         Mechanism = "freeze"
	Throttling     Mechanism = "throttling"
	PacketLoss     Mechanism = "packet_loss"
	QUICBlock      Mechanism = "quic_block"
	QUICSNIBlock   Mechanism = "quic_sni_block"
	UDPBlock       Mechanism = "udp_block"
	ProtocolBlock  Mechanism = "protocol_block"
	CallBlock      Mechanism = "call_block"
	ServiceOutage  Mechanism = "service_outage"
	UnknownCause   Mechanism = "unknown"
)

// Mechanisms is every Mechanism, in the order in which they explain: what
// comes first on a connection's way comes first here.
var Mechanisms = [...]Mechanism{DNSInjection, DNSHijack, DNSForgery, DNSOmission, DNSDrop,
	IPBlock, PortBlock, TCPReset, TLSMITM, SNIReset, SNIDrop, SNIDelayedDrop, TLSFingerprint,
	HTTPStub, ProtocolBlock, CallBlock, UDPBlock, QUICBlock, QUICSNIBlock, Freeze, Throttling,
	PacketLoss, ServiceOutage, UnknownCause}

// Confidence is how sure a verdict's mechanism is; a closed set.
type Confidence string

const (
	Low       Confidence = "low"       // one signal
	Medium    Confidence = "medium"    // a differential pair agrees and the controls are clean
	High      Confidence = "high"      // medium, and a repeat or a second endpoint
	Confirmed Confidence = "confirmed" // the wire itself proves it
)

// Confidences is every Confidence, weakest first.
var Confidences = [...]Confidence{Low, Medium, High, Confirmed}

// A Verdict is what many outcomes mean for one function of one messenger.
type Verdict struct {
	Messenger, Function string
	State               State
	Mechanism           Mechanism  // empty unless degraded, blocked or unreachable
	Confidence          Confidence // empty where Mechanism is
	Since               time.Time  // when the state began; zero: not known
	Evidence            []string   // sentences for a person, the strongest first
}

// VantageState is what the controls say of the place that is measured from; a
// closed set.
type VantageState string

const (
	Online    VantageState = "online"
	Offline   VantageState = "offline"   // no control answers
	Whitelist VantageState = "whitelist" // only domestic controls answer
	Impaired  VantageState = "impaired"  // controls lossy or slow, resolver broken, agent overloaded
)

// VantageStates is every VantageState.
var VantageStates = [...]VantageState{Online, Offline, Whitelist, Impaired}

// Reason is the reason for which a vantage in this state voids an outcome;
// empty while online.
func (s VantageState) Reason() probe.Reason {
	switch s {
	case Offline:
		return probe.ReasonOffline
	case Whitelist:
		return probe.ReasonWhitelist
	case Impaired:
		return probe.ReasonImpaired
	}
	return ""
}
