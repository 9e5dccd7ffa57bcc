// Package interop asks servers that nobody here wrote: Telegram's exchange is
// answered by github.com/gotd/td, WhatsApp's by go.mau.fi/whatsmeow with
// signatures of go.mau.fi/libsignal. It is a module of its own, so that what it
// needs stays out of the program's: run it with
//
//	cd probe/interop && go test ./...
package interop
