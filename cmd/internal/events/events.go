// Package events keeps the log of changes: one JSON object a line, appended to
// a file where there is a state folder, and the newest in memory.
package events

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// Event is one change of the state of one function of a messenger.
type Event struct {
	Time        time.Time  `json:"time"`
	Messenger   string     `json:"messenger"`
	Function    string     `json:"function"`
	State       string     `json:"state"`
	Was         string     `json:"was"`
	Mechanism   string     `json:"mechanism,omitempty"`
	Confidence  string     `json:"confidence,omitempty"`
	Onset       *time.Time `json:"onset,omitempty"`       // when it began, as far as outcomes tell
	Score       float64    `json:"score,omitempty"`       // nats, where the detector was sure
	Relapse     bool       `json:"relapse,omitempty"`     // an episode already told goes on
	Attribution string     `json:"attribution,omitempty"` // confirmed, unconfirmed
	Evidence    []string   `json:"evidence"`
}

const (
	// Kept is how many events are held in memory.
	Kept = 200
	// maxFile is the size from which a new file is begun; one old one is kept.
	maxFile = 4 << 20
	maxLine = 64 << 10
	// maxTail is how much of the end of the file is read back.
	maxTail = 1 << 20
)

// A Log is safe for concurrent use. Whoever appends never waits for the disk:
// lines are written, and synced, by a goroutine of the log's own.
type Log struct {
	path string // "" keeps events in memory only

	mu     sync.Mutex
	recent []Event // oldest first

	lines    chan []byte // nil: nothing is written
	written  chan struct{}
	complain func(error)
}

// queued is how many lines may wait for a disk that is slow. There are some
// dozens a day.
const queued = 256

// Open is the log of a state folder, with what it holds already; "" is one in
// memory. A line that cannot be read, such as the last one after a crash or one
// longer than 64 KiB, is passed over. On an error the log is usable and empty.
// complain is told of each event that could not be written; such a one is kept in
// memory all the same.
func Open(dir string, complain func(error)) (*Log, error) {
	l := new(Log)
	if dir == "" {
		return l, nil
	}
	l.path, l.complain = filepath.Join(dir, "events.jsonl"), complain
	l.start(l.write)
	f, err := plainfile.Own(l.path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxTail {
		if _, err := f.Seek(-maxTail, io.SeekEnd); err != nil {
			return l, err
		}
	}
	in := bufio.NewReaderSize(io.LimitReader(f, maxTail), maxLine)
	for long := false; err == nil; {
		var line []byte
		line, err = in.ReadSlice('\n')
		var e Event
		if err != bufio.ErrBufferFull && !long && json.Unmarshal(line, &e) == nil && !e.Time.IsZero() {
			l.add(e)
		}
		if long = err == bufio.ErrBufferFull; long {
			err = nil
		}
	}
	if err == io.EOF {
		err = nil
	}
	return l, err
}

func (l *Log) start(write func([]byte) error) {
	lines := make(chan []byte, queued)
	l.lines, l.written = lines, make(chan struct{})
	go func() {
		defer close(l.written)
		for b := range lines {
			b = append(b, '\n')
			for i := 0; i < queued && len(lines) > 0; i++ { // what has queued up costs one sync
				b = append(append(b, <-lines...), '\n')
			}
			if err := write(b); err != nil {
				l.complain(err)
			}
		}
	}()
}

func (l *Log) add(e Event) {
	l.recent = append(l.recent, e)
	if len(l.recent) > Kept {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-Kept)
	}
}

// Append adds an event.
func (l *Log) Append(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(e)
	if l.lines == nil {
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		l.complain(err)
		return
	}
	select {
	case l.lines <- b:
	default:
		l.complain(errors.New("the disk does not keep up"))
	}
}

// Close waits until all is written. Events that are appended later are kept in
// memory alone.
func (l *Log) Close() {
	l.mu.Lock()
	lines := l.lines
	l.lines = nil
	l.mu.Unlock()
	if lines != nil {
		close(lines)
		<-l.written
	}
}

// write appends lines to the file, and begins a new file where it is large.
func (l *Log) write(b []byte) error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	if st, err := os.Stat(l.path); err == nil && st.Size() > maxFile {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	f, err := plainfile.Own(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// A line that a crash has cut must not swallow this one.
	if st, err := f.Stat(); err == nil && st.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, st.Size()-1); err == nil && !bytes.Equal(last, []byte("\n")) {
			b = append([]byte("\n"), b...)
		}
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// Recent is the newest events, newest first.
func (l *Log) Recent() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.recent)
	slices.Reverse(out)
	return out
}

// Write writes the newest events as JSON.
func (l *Log) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Schema string  `json:"schema"`
		Events []Event `json:"events"`
	}{"messenger-probe/events/v1", l.Recent()})
}
