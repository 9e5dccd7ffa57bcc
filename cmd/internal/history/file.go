package history

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/messenger-probe/messenger-probe/targets/plainfile"
)

// The file begins with a line that names its form. Frames follow: the length of
// the content in two bytes, the content, its CRC-32C in four; numbers are
// little-endian, "uvarint" as encoding/binary has it.
//
//	'n' id  length messenger  length function       names a series
//	'c' cell  then of each series that has any: id ok fail mark median
//
// where cell, ok and fail are uvarints and all else is bytes. A later frame of
// the same cell replaces an earlier one.
//
// Every minute the cells that changed are appended. When the file is twice what
// it need be, a new one is written beside it and renamed over it. So whatever is
// torn is the end of the file, and that is a minute.
const (
	magic   = "messenger-probe history "
	version = "1\n"
	// maxFile bounds what is read: four times what a full history takes.
	maxFile = 16 << 20
	// minFile is the size below which it is not worth to write anew.
	minFile = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file is where a history is kept.
type file struct {
	path string // "": in memory only

	mu    sync.Mutex // taken before History.mu
	stale bool       // it does not begin as it should, or end as we know; of History.mu
	ids   map[key]byte
	size  int64 // bytes that we know to be whole
	full  int64 // bytes it had when it was last written anew
}

// Open is the history of a state folder; "" is one in memory. Of a file that is
// torn it is what stands before the tear. A file that is none of ours, or of a
// later version, is put aside under the name history.old. Either is said as an
// error, with a history that works.
func Open(dir string, now time.Time) (*History, error) {
	h := &History{series: map[key]*series{}, changed: map[int64]bool{}}
	h.file.ids = map[key]byte{}
	if dir == "" {
		return h, nil
	}
	h.file.path = filepath.Join(dir, "history.log")
	h.file.stale = true
	f, err := plainfile.Own(h.file.path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	f.Close()
	switch {
	case err != nil:
	case len(b) > maxFile:
		err = foreign("larger than 16 MiB")
	default:
		var good int
		good, err = h.decode(b)
		h.file.size, h.file.full = int64(good), int64(good)
	}
	if _, is := errors.AsType[foreign](err); is {
		err = fmt.Errorf("%w; it is kept as history.old", errors.Join(err, os.Rename(h.file.path, filepath.Join(dir, "history.old"))))
	} else if err == nil {
		h.file.stale = false
	}
	// A clock that is ahead of the file is right: the agent was not running. One
	// that is behind may not be set yet.
	if n := number(now); h.head != 0 && n > h.head {
		h.advance(n)
	}
	if err != nil {
		return h, fmt.Errorf("%s: %w", h.file.path, err)
	}
	return h, nil
}

// foreign is the error of a file that is none of ours.
type foreign string

func (f foreign) Error() string { return string(f) }

// decode takes over what is in a file, and says how many bytes of it are whole.
func (h *History) decode(b []byte) (good int, err error) {
	v, ours := bytes.CutPrefix(b, []byte(magic))
	switch {
	case len(b) < len(magic) && bytes.HasPrefix([]byte(magic), b), ours && len(v) < len(version) && !bytes.Contains(v, []byte("\n")):
		return 0, errors.New("torn in its first line")
	case !ours:
		return 0, foreign("not a history")
	case !bytes.HasPrefix(v, []byte(version)):
		line, _, _ := bytes.Cut(v, []byte("\n"))
		return 0, foreign(fmt.Sprintf("of version %.20q; this program reads 1", line))
	}
	good = len(magic) + len(version)
	names := map[byte]key{}
	for good < len(b) {
		payload, n, ok := frame(b[good:])
		if !ok || !h.take(payload, names) {
			return good, fmt.Errorf("torn or altered at byte %d of %d; what stands before is kept", good, len(b))
		}
		good += n
	}
	return good, nil
}

// frame is the content of the first frame of b, and how long the frame is.
func frame(b []byte) (payload []byte, n int, ok bool) {
	if len(b) < 2 {
		return nil, 0, false
	}
	l := int(binary.LittleEndian.Uint16(b))
	n = 2 + l + 4
	if l == 0 || len(b) < n {
		return nil, 0, false
	}
	payload = b[2 : 2+l]
	return payload, n, crc32.Checksum(payload, castagnoli) == binary.LittleEndian.Uint32(b[2+l:])
}

// appendFrame appends a frame of what add appends.
func appendFrame(b []byte, add func([]byte) []byte) []byte {
	at := len(b)
	b = add(append(b, 0, 0))
	payload := b[at+2:]
	binary.LittleEndian.PutUint16(b[at:], uint16(len(payload)))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
}

// take takes over the content of a frame, all of it or nothing.
func (h *History) take(p []byte, names map[byte]key) bool {
	r := reader{p[1:], true}
	switch p[0] {
	case 'n':
		id := r.byte()
		k := key{r.text(), r.text()}
		// In turn, and each once: so there can be no more than 256.
		if !r.ok || len(r.b) > 0 || int(id) != len(names) || h.series[k] != nil || len(k.messenger) > maxName || len(k.function) > maxName {
			return false
		}
		h.series[k] = new(series)
		names[id] = k
		h.file.ids[k] = id
		return true
	case 'c':
		n := int64(r.uvarint(1<<40 - 1))
		type entry struct {
			s *series
			c cell
		}
		var entries []entry
		for r.ok && len(r.b) > 0 {
			k, named := names[r.byte()]
			c := cell{uint16(r.uvarint(1<<16 - 1)), uint16(r.uvarint(1<<16 - 1)), Mark(r.byte()), r.byte()}
			if !named || c.mark > lastMark || c.median > buckets {
				return false
			}
			entries = append(entries, entry{h.series[k], c})
		}
		if !r.ok || n == 0 {
			return false
		}
		if h.head == 0 {
			h.head = n
		}
		h.advance(n)
		if n > h.head-int64(Kept) {
			for _, e := range entries {
				e.s.cells[n%int64(Kept)] = e.c
			}
		}
		return true
	}
	return false
}

// reader takes a content apart.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.ok = false
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.ok, r.b = false, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := int(r.byte())
	if n > len(r.b) {
		r.ok = false
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// Save writes what changed since the last time. After an error all is written
// anew the next time.
func (h *History) Save() error {
	f := &h.file
	if f.path == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h.mu.Lock()
	anew := f.stale || f.size > max(2*f.full, minFile)
	var b []byte
	if anew {
		f.stale = false
		b = h.encode()
	} else {
		b = h.changes(nil, slices.Sorted(maps.Keys(h.changed)))
	}
	clear(h.changed)
	h.mu.Unlock()
	if len(b) == 0 {
		return nil
	}
	var err error
	if anew {
		err = replace(f.path, b)
	} else {
		err = extend(f.path, b, f.size)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		f.stale = true
		return err
	}
	if anew {
		f.full, f.size = int64(len(b)), 0
	}
	f.size += int64(len(b))
	return nil
}

// encode is a whole file.
func (h *History) encode() []byte {
	clear(h.file.ids)
	h.purge()
	cells := make([]int64, 0, Kept)
	for n := max(h.head-int64(Kept)+1, 1); n <= h.head; n++ {
		cells = append(cells, n)
	}
	return h.changes([]byte(magic+version), cells)
}

// changes appends frames of these cells, and of the names that they need.
func (h *History) changes(b []byte, cells []int64) []byte {
	keys := slices.SortedFunc(maps.Keys(h.series), func(x, y key) int {
		return cmp.Or(cmp.Compare(x.messenger, y.messenger), cmp.Compare(x.function, y.function))
	})
	for _, k := range keys {
		if _, ok := h.file.ids[k]; ok {
			continue
		}
		if len(h.file.ids) > 255 { // names of many a catalogue: begin anew
			h.file.stale = true
			return b
		}
		id := byte(len(h.file.ids))
		h.file.ids[k] = id
		b = appendFrame(b, func(b []byte) []byte {
			b = append(b, 'n', id, byte(len(k.messenger)))
			b = append(append(b, k.messenger...), byte(len(k.function)))
			return append(b, k.function...)
		})
	}
	for _, n := range cells {
		if n > h.head || n <= h.head-int64(Kept) {
			continue
		}
		any := false
		framed := appendFrame(b, func(b []byte) []byte {
			b = binary.AppendUvarint(append(b, 'c'), uint64(n))
			for _, k := range keys {
				c := &h.series[k].cells[n%int64(Kept)]
				if *c == (cell{}) {
					continue
				}
				any = true
				b = append(b, h.file.ids[k])
				b = binary.AppendUvarint(b, uint64(c.ok))
				b = binary.AppendUvarint(b, uint64(c.fail))
				b = append(b, byte(c.mark), c.median)
			}
			return b
		})
		if any {
			b = framed
		}
	}
	return b
}

// extend appends to a file that must be as long as we know it to be.
func extend(path string, b []byte, size int64) error {
	f, err := plainfile.Own(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		return errors.Join(fmt.Errorf("%s: somebody else has written to it", path), err, f.Close())
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// replace puts a file in the place of another, so that a crash leaves one or
// the other whole.
func replace(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := plainfile.Own(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
