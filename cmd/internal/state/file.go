package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// Version of a file's form. A file of a later version is refused.
const Version = 1

// maxFile bounds what is read back.
const maxFile = 8 << 20

// A File keeps one JSON value, by its path.
type File string

// envelope is what stands in a file.
type envelope struct {
	Version  int             `json:"version"`
	Checksum string          `json:"checksum"` // SHA-256 of State as it stands in the file
	State    json.RawMessage `json:"state"`
}

// Load reads the value. No file yet is no error, and leaves into as it is.
func (p File) Load(into any) error {
	f, err := plainfile.Own(string(p), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("%s: larger than %d bytes", p, maxFile)
	}
	if err := decode(b, into); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// Save writes the value, making the folder where it is missing.
func (p File) Save(value any) error {
	b, err := encode(value)
	if err != nil {
		return err
	}
	dir := filepath.Dir(string(p))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".state-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), string(p))
}

func encode(value any) ([]byte, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return json.Marshal(envelope{Version, hex.EncodeToString(sum[:]), raw})
}

func decode(b []byte, into any) error {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("not a state file, or torn: %w", err)
	}
	if e.Version != Version {
		return fmt.Errorf("version %d; this program reads %d", e.Version, Version)
	}
	if sum := sha256.Sum256(e.State); e.Checksum != hex.EncodeToString(sum[:]) {
		return errors.New("its checksum does not fit: torn or altered")
	}
	return json.Unmarshal(e.State, into)
}
