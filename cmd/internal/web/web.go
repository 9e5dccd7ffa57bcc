// Package web is the agent's own HTTP server: metrics, status, health, and the
// page for people. TLS, client certificates and passwords are exporter-toolkit's.
package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"regexp"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// Options are what the server shows.
type Options struct {
	Metrics   http.Handler
	Status    func(io.Writer) error // the JSON document
	Events    func(io.Writer) error // the newest changes as JSON
	Page      http.Handler          // for people
	Ready     func() bool           // whether a first judgement was made
	Healthy   func() bool           // whether the schedule still runs
	Reload    func() error          // nil: POST /-/reload is not served
	Profile   bool                  // serve /debug/pprof/
	WebConfig string                // exporter-toolkit file, "" none
	Log       *slog.Logger

	// Hosts is the names, with or without a port, by which the agent may be
	// asked for beside those that only this machine or network can have.
	Hosts func() []string
}

// Handler is the server's routes.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Metrics)
	mux.Handle("GET /{$}", o.Page)
	document := func(write func(io.Writer) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if err := write(w); err != nil {
				o.Log.Debug("answer", "path", r.URL.Path, "error", err)
			}
		}
	}
	mux.HandleFunc("GET /api/v1/status", document(o.Status))
	mux.HandleFunc("GET /api/v1/events", document(o.Events))
	answer := func(ok func() bool, yes, no string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !ok() {
				http.Error(w, no, http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, yes+"\n")
		}
	}
	mux.HandleFunc("GET /-/healthy", answer(o.Healthy, "healthy", "the schedule stands still"))
	mux.HandleFunc("GET /-/ready", answer(o.Ready, "ready", "not measured yet"))
	if o.Reload != nil {
		mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, r *http.Request) {
			if err := o.Reload(); err != nil {
				// The error may name files of this machine; the log has it.
				http.Error(w, "not reloaded: the configuration is not valid; see the log", http.StatusInternalServerError)
				return
			}
			io.WriteString(w, "reloaded\n")
		})
	}
	if o.Profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return headers(mux)
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// Serve serves on l until ctx is done, then lets requests end for two seconds.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	s := server(guard(Handler(o), o), o.Log)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close()
		}
		stopped <- err
	})
	systemd := false
	quiet := slog.New(slog.DiscardHandler) // the toolkit's own lines name the listener; run does
	err := toolkit.Serve(few(l), s, &toolkit.FlagConfig{WebConfigFile: &o.WebConfig, WebSystemdSocket: &systemd}, quiet)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// server is bounded in what a slow or greedy client may cost.
func server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// maxConfig bounds an exporter-toolkit file, in bytes.
const maxConfig = 1 << 20

var quoted = regexp.MustCompile("`[^`]*`")

// CheckConfig says whether an exporter-toolkit file would be accepted.
func CheckConfig(file string) error {
	if file == "" {
		return nil
	}
	if _, err := plainfile.Read(file, maxConfig); err != nil { // the toolkit reads whatever is there to its end
		return err
	}
	if err := toolkit.Validate(file); err != nil {
		// YAML's errors quote what they stumble over, which may be a password.
		return errors.New(quoted.ReplaceAllString(err.Error(), "…"))
	}
	return nil
}
