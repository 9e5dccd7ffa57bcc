package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Classify is the one place where an error becomes a Failure. It follows OONI
// (ooni/probe-cli internal/netxlite/classify.go and errno.go), and differs
// where an error blames this machine and OONI's unknown_failure would blame the
// messenger; each such place says so.
//
// As with OONI, an alert that ends a TLS handshake over TCP is unknown_failure
// but for unrecognized_name, and so is an answer that is no TLS; TLSInfo tells
// these apart.
func Classify(err error) Failure {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*FailureError](err); ok {
		return f.Failure
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		if f, ok := classifyErrno(e, err); ok {
			return f
		}
	}
	if f, ok := classifyCertificate(err); ok {
		return f
	}
	// Before the plain errors below, which quic-go's errors claim to be too.
	if f, ok := classifyQUIC(err); ok {
		return f
	}
	if a, ok := remoteAlert(err); ok {
		if a == alertUnrecognizedName {
			return FailureSSLInvalidHostname
		}
		return FailureUnknown
	}
	if f, ok := classifyLookup(err); ok {
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		return FailureInterrupted
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return FailureTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return FailureEOF
	case errors.Is(err, net.ErrClosed):
		return FailureConnectionAlreadyClosed
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return FailureTimeout
	}
	return FailureUnknown
}

// alertUnrecognizedName is unrecognized_name, RFC 6066 §3.
const alertUnrecognizedName tls.AlertError = 112

// classifyErrno names an error of the kernel; err is what it came in.
func classifyErrno(e syscall.Errno, err error) (Failure, bool) {
	switch e {
	case syscall.EAFNOSUPPORT:
		return FailureAddressFamilyNotSupported, true
	case syscall.EADDRINUSE:
		return FailureAddressInUse, true
	case syscall.EADDRNOTAVAIL:
		return FailureAddressNotAvailable, true
	case syscall.EISCONN:
		return FailureAlreadyConnected, true
	case syscall.EFAULT:
		return FailureBadAddress, true
	case syscall.EBADF:
		return FailureBadFileDescriptor, true
	case syscall.ECONNABORTED:
		return FailureConnectionAborted, true
	case syscall.EALREADY:
		return FailureConnectionAlreadyInProgess, true
	case syscall.ECONNREFUSED:
		return FailureConnectionRefused, true
	case syscall.ECONNRESET,
		// The kernel's word for a reset after a FIN (Linux tcp_reset); OONI has
		// no name for it.
		syscall.EPIPE:
		return FailureConnectionReset, true
	case syscall.EDESTADDRREQ:
		return FailureDestinationAddressRequired, true
	case syscall.EHOSTUNREACH,
		syscall.EHOSTDOWN: // ICMP host unknown (Linux icmp_err_convert); no name with OONI
		return FailureHostUnreachable, true
	case syscall.EINTR:
		return FailureInterrupted, true
	case syscall.EINVAL:
		return FailureInvalidArgument, true
	case syscall.EMSGSIZE:
		return FailureMessageSize, true
	case syscall.ENETDOWN:
		return FailureNetworkDown, true
	case syscall.ENETRESET:
		return FailureNetworkReset, true
	case syscall.ENETUNREACH:
		return FailureNetworkUnreachable, true
	case syscall.ENOBUFS,
		// A machine that has run out of something else. unknown_failure, OONI's
		// name, would blame the messenger.
		syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		return FailureNoBufferSpace, true
	case syscall.ENOPROTOOPT:
		return FailureNoProtocolOption, true
	case syscall.ENOTSOCK:
		return FailureNotASocket, true
	case syscall.ENOTCONN:
		return FailureNotConnected, true
	case syscall.EAGAIN:
		return FailureOperationWouldBlock, true
	case syscall.EACCES:
		// ICMPv6 "administratively prohibited" is EACCES (Linux
		// icmpv6_err_convert), what in IPv4 is EHOSTUNREACH.
		if s, ok := errors.AsType[*os.SyscallError](err); ok && carries(s.Syscall) {
			return FailureHostUnreachable, true
		}
		return FailurePermissionDenied, true
	case syscall.EPERM:
		// Only this machine says so: its firewall or its sandbox. OONI leaves it
		// unknown.
		return FailurePermissionDenied, true
	case syscall.EPROTONOSUPPORT:
		return FailureProtocolNotSupported, true
	case syscall.ETIMEDOUT:
		return FailureTimedOut, true
	case syscall.EPROTOTYPE:
		return FailureWrongProtocolType, true
	}
	return "", false
}

// carries says whether a system call reports what became of earlier packets.
func carries(call string) bool {
	switch call {
	case "connect", "read", "write", "recvfrom", "recvmsg", "sendto", "sendmsg":
		return true
	}
	return false
}

// classifyCertificate names what is wrong with a chain.
func classifyCertificate(err error) (Failure, bool) {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return FailureSSLInvalidHostname, true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return FailureSSLUnknownAuthority, true
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return FailureSSLInvalidCertificate, true
	}
	// Two more ways for a certificate to be invalid that OONI does not name.
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return FailureSSLInvalidCertificate, true
	}
	if _, ok := errors.AsType[x509.InsecureAlgorithmError](err); ok {
		return FailureSSLInvalidCertificate, true
	}
	return "", false
}

// classifyLookup names the failure of a lookup by the system's resolver. Those
// of our own DNS prober know their name and are FailureErrors.
func classifyLookup(err error) (Failure, bool) {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok, errors.Is(err, context.Canceled):
		return "", false
	case e.IsTimeout:
		return FailureTimeout, true
	case e.IsNotFound:
		return FailureDNSNXDOMAIN, true
	case strings.HasSuffix(e.Err, "server misbehaving"): // any other rcode; package net exports no better
		return FailureDNSServerMisbehaving, true
	case e.IsTemporary:
		return FailureDNSTemporary, true
	}
	return FailureDNSNonRecoverable, true
}
