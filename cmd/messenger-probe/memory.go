package main

import (
	"encoding/json"
	"time"

	"github.com/messenger-probe/messenger-probe/cmd/internal/agent"
	"github.com/messenger-probe/messenger-probe/cmd/internal/state"
)

// recall is what an earlier run of the agent left in its state folder.
func recall(dir string) (agent.Memory, error) {
	s, err := state.Load(dir)
	if err != nil {
		return agent.Memory{}, err
	}
	m := agent.Memory{Proven: s.Proven, Onset: s.Onset}
	if len(s.Functions) > 0 {
		err = json.Unmarshal(s.Functions, &m.Functions)
	}
	return m, err
}

// keep leaves what is to survive in the state folder.
func keep(dir string, m agent.Memory) error {
	functions, err := json.Marshal(m.Functions)
	if err != nil {
		return err
	}
	return state.Save(dir, state.State{Time: time.Now().UTC(), Proven: m.Proven, Onset: m.Onset, Functions: functions})
}
