// Package interop has mail taken by a server that nobody here wrote,
// github.com/emersion/go-smtp, with STARTTLS and logins. It is a module of its
// own, so that what it needs stays out of the program's: run it with
//
//	cd cmd/internal/notify/interop && go test ./...
package interop
