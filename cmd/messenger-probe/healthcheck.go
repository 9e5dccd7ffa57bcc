package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Asks a running agent whether it is well; for containers without a shell",
		Long: `Asks /-/healthy of the agent at the configured listen address, and prints
nothing where it is well. Exit status 0 well, 1 not well, not there, or not to be
found for want of a valid configuration.`,
		Example: "  messenger-probe healthcheck && echo well",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := p.load(c)
			if err != nil {
				return &exit{exitNotOK, err} // Docker reserves 2
			}
			ctx, cancel := context.WithTimeout(c.Context(), 4*time.Second)
			defer cancel()
			if err := askHealth(ctx, cfg.Listen, cfg.WebConfig != ""); err != nil {
				return &exit{exitNotOK, err}
			}
			return nil
		},
	}
}

// askHealth asks the agent that listens there. With a web configuration it may
// speak TLS and want a password: any answer of an HTTP server proves that it
// serves, which is all that can be asked without the secret.
func askHealth(ctx context.Context, listen string, guarded bool) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	schemes := []string{"http"}
	if guarded {
		schemes = []string{"https", "http"}
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy: nil,
		// This is our own process on our own address; its certificate is for
		// those who scrape it by name.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	var last error
	for _, scheme := range schemes {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/-/healthy", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			last = err
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK || guarded && resp.StatusCode == http.StatusUnauthorized {
			return nil
		}
		last = fmt.Errorf("the agent answers %s", resp.Status)
	}
	return last
}
