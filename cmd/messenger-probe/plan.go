package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/config"
	"github.com/messenger-probe/messenger-probe/cmd/internal/notify"
	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/verdict"
	"github.com/messenger-probe/messenger-probe/targets"
	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// maxRoots bounds a file of roots, in bytes. Mozilla's whole list has 230 kB.
const maxRoots = 4 << 20

// A planned configuration is ready to be measured.
type planned struct {
	cfg       *config.Loaded
	catalogue string            // version
	titles    map[string]string // of messengers, by name
	checks    []probe.Check
	missing   []string // families that were asked for and that this host lacks
	people    *notify.Audience
}

// title is the name of a messenger as people write it.
func (p *planned) title(messenger string) string {
	return cmp.Or(p.titles[messenger], messenger)
}

// unasked is the questions that the configuration rules out.
func unasked(cfg *config.Loaded) []verdict.Ask {
	if cfg.SplitsHello() {
		return nil
	}
	return []verdict.Ask{verdict.AskSplitHello}
}

// plan turns a configuration into checks; all of it, or an error.
func plan(cfg *config.Loaded) (*planned, error) {
	cat, err := targets.Load(cfg.Catalogue)
	if err != nil {
		return nil, err
	}
	var pem []byte
	if f := cfg.Trust.CAFile; f != "" {
		if pem, err = plainfile.Read(f, maxRoots); err != nil {
			return nil, fmt.Errorf("trust.ca_file: %w", err)
		}
	}
	base, err := probe.NewTrust(pem)
	if err != nil {
		return nil, fmt.Errorf("trust.ca_file: %s: %w", cfg.Trust.CAFile, err)
	}
	root, err := cfg.NoiseRoot()
	if err != nil {
		return nil, err
	}
	// Of the catalogue itself nothing more is needed than the checks.
	p := &planned{cfg: cfg, catalogue: cat.Version, titles: map[string]string{}}
	for _, m := range cat.Messengers {
		p.titles[m.Name] = m.Title
	}
	var families []string
	for _, f := range cfg.Families {
		if probe.HasFamily(f) {
			families = append(families, f)
		} else {
			p.missing = append(p.missing, f)
		}
	}
	if len(families) == 0 {
		families, p.missing = cfg.Families, nil // nothing works: measuring will say so
	}
	tiers := []string{"core"}
	if cfg.Extended {
		tiers = append(tiers, "extended")
	}
	system := probe.NewSystemResolver("")
	system.AllowBogons = cat.TestNetwork
	p.checks, err = cat.Checks(targets.Vantage{
		Families:      families,
		Resolver:      system,
		SystemServers: system.Servers(),
		Trust: func(pins [][32]byte) *probe.Trust {
			if len(pins) == 0 {
				return base
			}
			return &probe.Trust{Roots: base.Roots, Pins: pins}
		},
		NoiseRoot:  root,
		Interval:   time.Duration(cfg.Interval),
		Timeout:    time.Duration(cfg.Timeout),
		Messengers: cfg.Messengers,
		Tiers:      tiers,
	})
	if err != nil {
		return nil, cfg.At("messengers", err)
	}
	if p.people, err = audience(cfg, pem); err != nil {
		return nil, err
	}
	return p, nil
}
