package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The closed vocabularies of the JSON, written down once more: a word that
// changes in the code changes for everybody who reads it.
var (
	wordsVantage    = words("online offline whitelist impaired")
	wordsNetwork    = words("datacenter residential mobile unknown")
	wordsState      = words("ok degraded blocked unreachable unknown")
	wordsConfidence = words("low medium high confirmed")
	wordsMechanism  = words(`dns_omission dns_injection dns_hijack dns_forgery dns_drop ip_block port_block tcp_reset sni_reset
		sni_drop sni_delayed_drop tls_mitm tls_fingerprint http_stub freeze throttling packet_loss quic_block quic_sni_block
		udp_block protocol_block call_block service_outage unknown`)
	wordsFunction  = words("chat calls media web login push bots domestic foreign sibling positive")
	wordsCheck     = words("dns tcp tls quic http websocket mtproto noise oneme stun transfer")
	wordsFamily    = words("ip4 ip6")
	wordsOutcome   = words("ok fail void")
	wordsOperation = words("resolve connect tls_handshake quic_handshake request reply transfer")
	// OONI's df-007 and the errno names of its probe.
	wordsFailure = words(`address_family_not_supported address_in_use address_not_available already_connected android_dns_cache_no_data
		bad_address bad_file_descriptor connection_aborted connection_already_closed connection_already_in_progress
		connection_refused connection_reset destination_address_required dns_bogon_error dns_no_answer
		dns_non_recoverable_failure dns_nxdomain_error dns_refused_error dns_reply_with_wrong_query_id dns_server_misbehaving
		dns_servfail_error dns_temporary_failure eof_error generic_timeout_error host_unreachable
		http_invalid_redirect_location_host http_request_failed http_unexpected_redirect_url http_unexpected_status_code
		interrupted invalid_argument json_parse_error message_size network_down network_reset network_unreachable
		no_buffer_space no_protocol_option not_a_socket not_connected operation_would_block permission_denied
		protocol_not_supported quic_incompatible_version ssl_failed_handshake ssl_invalid_certificate ssl_invalid_hostname
		ssl_unknown_authority timed_out unknown_failure wrong_protocol_type`)
)

func words(s string) []string { return strings.Fields(s) }

// contract is everything in which a document is not what `check --output json`
// and /api/v1/status promise.
func contract(text []byte) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	type object = map[string]any
	var doc object
	if err := json.Unmarshal(text, &doc); err != nil {
		return []string{err.Error()}
	}
	get := func(o object, path, key string) any {
		v, ok := o[key]
		if !ok {
			bad("%s%s is missing", path, key)
		}
		return v
	}
	str := func(o object, path, key string) string {
		s, ok := get(o, path, key).(string)
		if !ok {
			bad("%s%s is %T, no text", path, key, o[key])
		}
		return s
	}
	word := func(o object, path, key string, set []string) string {
		s := str(o, path, key)
		if !slices.Contains(set, s) {
			bad("%s%s: %q is not of the closed set", path, key, s)
		}
		return s
	}
	obj := func(o object, key string) object {
		m, ok := get(o, "", key).(object)
		if !ok {
			bad("%s is %T, no object", key, o[key])
		}
		return m
	}
	list := func(o object, path, key string) []any {
		l, ok := get(o, path, key).([]any)
		if !ok {
			bad("%s%s is %T, no list", path, key, o[key])
		}
		return l
	}
	moment := func(o object, path, key string) {
		if _, err := time.Parse(time.RFC3339, str(o, path, key)); err != nil {
			bad("%s%s: %v", path, key, err)
		}
	}

	if s := str(doc, "", "schema"); s != "messenger-probe/status/v1" {
		bad("schema %q", s)
	}
	moment(doc, "", "time")
	agent := obj(doc, "agent")
	str(agent, "agent.", "version")
	str(agent, "agent.", "catalogue")
	vantage := obj(doc, "vantage")
	str(vantage, "vantage.", "name")
	str(vantage, "vantage.", "country")
	word(vantage, "vantage.", "network", wordsNetwork)
	online := word(vantage, "vantage.", "state", wordsVantage) == "online"

	rows := map[string]bool{}
	for i, e := range list(doc, "", "verdicts") {
		v, _ := e.(object)
		path := fmt.Sprintf("verdicts[%d].", i)
		row := str(v, path, "messenger") + "/" + word(v, path, "function", wordsFunction[:7])
		if rows[row] {
			bad("%sfunction: %s has two verdicts", path, row)
		}
		rows[row] = true
		state := word(v, path, "state", wordsState)
		for _, s := range list(v, path, "evidence") {
			if t, ok := s.(string); !ok || t == "" {
				bad("%sevidence holds %v", path, s)
			}
		}
		if v["since"] != nil {
			moment(v, path, "since")
		}
		mechanism, _ := v["mechanism"].(string)
		confidence, _ := v["confidence"].(string)
		if failing := state == "degraded" || state == "blocked" || state == "unreachable"; failing {
			word(v, path, "mechanism", wordsMechanism)
			word(v, path, "confidence", wordsConfidence)
		} else if mechanism != "" || confidence != "" {
			bad("%s%s has mechanism %q, confidence %q", path, state, mechanism, confidence)
		}
		if !online && state != "unknown" {
			bad("%sstate is %s, and the vantage is not online", path, state)
		}
	}
	if len(rows) == 0 {
		bad("no verdicts")
	}

	for i, e := range list(doc, "", "results") {
		r, _ := e.(object)
		path := fmt.Sprintf("results[%d].", i)
		messenger := str(r, path, "messenger")
		function := word(r, path, "function", wordsFunction)
		if control := slices.Contains(wordsFunction[7:], function); control != (messenger == "control") {
			bad("%sfunction: %s of %s", path, function, messenger)
		} else if !control && !rows[messenger+"/"+function] {
			bad("%sfunction: %s of %s has no verdict", path, function, messenger)
		}
		str(r, path, "endpoint")
		check := word(r, path, "check", wordsCheck)
		word(r, path, "family", wordsFamily)
		if d, ok := get(r, path, "duration_seconds").(float64); !ok || d < 0 || d > 60 {
			bad("%sduration_seconds is %v", path, r["duration_seconds"])
		}
		if a, ok := r["address"]; ok {
			if _, err := netip.ParseAddrPort(fmt.Sprint(a)); err != nil || check == "dns" {
				bad("%saddress %v of check %s", path, a, check)
			}
		}
		outcome := word(r, path, "outcome", wordsOutcome)
		if outcome == "void" {
			str(r, path, "reason")
		} else if r["reason"] != nil {
			bad("%sreason of outcome %s", path, outcome)
		}
		_, failed := r["failure"]
		if outcome == "fail" || failed {
			word(r, path, "operation", wordsOperation)
			word(r, path, "failure", wordsFailure)
		}
		if outcome == "ok" && failed {
			bad("%soutcome is ok, and failure %v", path, r["failure"])
		}
	}
	return problems
}
