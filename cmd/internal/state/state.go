// Package state keeps what must survive a restart in small files.
//
// A file is JSON with a version and a checksum. It is written beside the old
// one and renamed over it, so that a crash leaves one or the other whole. A
// torn, foreign or future file is an error that the caller may ignore: the
// agent then starts without memory.
package state

import (
	"encoding/json"
	"path/filepath"
	"time"
)

// State is what survives of the agent.
type State struct {
	Time      time.Time       `json:"time"`
	Proven    []string        `json:"proven"`              // informational checks that have answered here
	Onset     []byte          `json:"onset,omitempty"`     // the onset detector's
	Functions json.RawMessage `json:"functions,omitempty"` // the states that were shown
}

func file(dir string) File { return File(filepath.Join(dir, "state.json")) }

// Load reads the state of dir. No file yet is no error and an empty state.
func Load(dir string) (State, error) {
	var s State
	if err := file(dir).Load(&s); err != nil {
		return State{}, err
	}
	return s, nil
}

// Save writes the state of dir, making the folder where it is missing.
func Save(dir string, s State) error { return file(dir).Save(s) }
