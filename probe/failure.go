package probe

// A Failure says how a step failed. It is a closed set, spelled like OONI's
// df-007 error names (ooni/spec data-formats/df-007-errors.md) and the errno
// names of ooni/probe-cli internal/netxlite/errno.go, so that research on both
// can be joined. "" means that the step worked.
type Failure string

const (
	FailureAddressFamilyNotSupported  Failure = "address_family_not_supported"
	FailureAddressInUse               Failure = "address_in_use"
	FailureAddressNotAvailable        Failure = "address_not_available"
	FailureAlreadyConnected           Failure = "already_connected"
	FailureAndroidDNSCacheNoData      Failure = "android_dns_cache_no_data"
	FailureBadAddress                 Failure = "bad_address"
	FailureBadFileDescriptor          Failure = "bad_file_descriptor"
	FailureConnectionAborted          Failure = "connection_aborted"
	FailureConnectionAlreadyClosed    Failure = "connection_already_closed"
	FailureConnectionAlreadyInProgess Failure = "connection_already_in_progress"
	FailureConnectionRefused          Failure = "connection_refused"
	FailureConnectionReset            Failure = "connection_reset"
	FailureDestinationAddressRequired Failure = "destination_address_required"
	FailureDNSBogon                   Failure = "dns_bogon_error"
	FailureDNSNoAnswer                Failure = "dns_no_answer"
	FailureDNSNonRecoverable          Failure = "dns_non_recoverable_failure"
	FailureDNSNXDOMAIN                Failure = "dns_nxdomain_error"
	FailureDNSRefused                 Failure = "dns_refused_error"
	FailureDNSWrongQueryID            Failure = "dns_reply_with_wrong_query_id"
	FailureDNSServerMisbehaving       Failure = "dns_server_misbehaving"
	FailureDNSServfail                Failure = "dns_servfail_error"
	FailureDNSTemporary               Failure = "dns_temporary_failure"
	FailureEOF                        Failure = "eof_error"
	FailureTimeout                    Failure = "generic_timeout_error"
	FailureHostUnreachable            Failure = "host_unreachable"
	FailureHTTPInvalidRedirectHost    Failure = "http_invalid_redirect_location_host"
	FailureHTTPRequestFailed          Failure = "http_request_failed"
	FailureHTTPUnexpectedRedirect     Failure = "http_unexpected_redirect_url"
	FailureHTTPUnexpectedStatus       Failure = "http_unexpected_status_code"
	FailureInterrupted                Failure = "interrupted"
	FailureInvalidArgument            Failure = "invalid_argument"
	FailureJSONParse                  Failure = "json_parse_error"
	FailureMessageSize                Failure = "message_size"
	FailureNetworkDown                Failure = "network_down"
	FailureNetworkReset               Failure = "network_reset"
	FailureNetworkUnreachable         Failure = "network_unreachable"
	FailureNoBufferSpace              Failure = "no_buffer_space"
	FailureNoProtocolOption           Failure = "no_protocol_option"
	FailureNotASocket                 Failure = "not_a_socket"
	FailureNotConnected               Failure = "not_connected"
	FailureOperationWouldBlock        Failure = "operation_would_block"
	FailurePermissionDenied           Failure = "permission_denied"
	FailureProtocolNotSupported       Failure = "protocol_not_supported"
	FailureQUICIncompatibleVersion    Failure = "quic_incompatible_version"
	FailureSSLFailedHandshake         Failure = "ssl_failed_handshake"
	FailureSSLInvalidCertificate      Failure = "ssl_invalid_certificate"
	FailureSSLInvalidHostname         Failure = "ssl_invalid_hostname"
	FailureSSLUnknownAuthority        Failure = "ssl_unknown_authority"
	FailureTimedOut                   Failure = "timed_out"
	FailureUnknown                    Failure = "unknown_failure"
	FailureWrongProtocolType          Failure = "wrong_protocol_type"
)

// A FailureError is an error whose Failure is known where it is made: a DNS
// rcode, a reply that is not the messenger's. Classify takes its word.
type FailureError struct {
	Failure Failure
	Text    string // a fixed phrase, no part of it from the network
}

func (e *FailureError) Error() string { return e.Text }

var failures = [...]Failure{
	FailureAddressFamilyNotSupported,
	FailureAddressInUse,
	FailureAddressNotAvailable,
	FailureAlreadyConnected,
	FailureAndroidDNSCacheNoData,
	FailureBadAddress,
	FailureBadFileDescriptor,
	FailureConnectionAborted,
	FailureConnectionAlreadyClosed,
	FailureConnectionAlreadyInProgess,
	FailureConnectionRefused,
	FailureConnectionReset,
	FailureDestinationAddressRequired,
	FailureDNSBogon,
	FailureDNSNoAnswer,
	FailureDNSNonRecoverable,
	FailureDNSNXDOMAIN,
	FailureDNSRefused,
	FailureDNSWrongQueryID,
	FailureDNSServerMisbehaving,
	FailureDNSServfail,
	FailureDNSTemporary,
	FailureEOF,
	FailureTimeout,
	FailureHostUnreachable,
	FailureHTTPInvalidRedirectHost,
	FailureHTTPRequestFailed,
	FailureHTTPUnexpectedRedirect,
	FailureHTTPUnexpectedStatus,
	FailureInterrupted,
	FailureInvalidArgument,
	FailureJSONParse,
	FailureMessageSize,
	FailureNetworkDown,
	FailureNetworkReset,
	FailureNetworkUnreachable,
	FailureNoBufferSpace,
	FailureNoProtocolOption,
	FailureNotASocket,
	FailureNotConnected,
	FailureOperationWouldBlock,
	FailurePermissionDenied,
	FailureProtocolNotSupported,
	FailureQUICIncompatibleVersion,
	FailureSSLFailedHandshake,
	FailureSSLInvalidCertificate,
	FailureSSLInvalidHostname,
	FailureSSLUnknownAuthority,
	FailureTimedOut,
	FailureUnknown,
	FailureWrongProtocolType,
}

// Failures is every Failure, sorted.
func Failures() []Failure { return failures[:] }

// Local says that a failure blames this machine, not the path or the peer.
// network_unreachable and host_unreachable are the path's as far as anyone can
// tell from the error; the controls decide (package verdict).
func (f Failure) Local() bool {
	switch f {
	case FailureAddressFamilyNotSupported, FailureAddressInUse, FailureAddressNotAvailable,
		FailureAlreadyConnected, FailureBadAddress, FailureBadFileDescriptor,
		FailureConnectionAlreadyClosed, FailureConnectionAlreadyInProgess,
		FailureDestinationAddressRequired, FailureInvalidArgument, FailureMessageSize,
		FailureNetworkDown, FailureNoBufferSpace, FailureNoProtocolOption, FailureNotASocket,
		FailureNotConnected, FailureOperationWouldBlock, FailurePermissionDenied,
		FailureProtocolNotSupported, FailureWrongProtocolType:
		return true
	}
	return false
}
