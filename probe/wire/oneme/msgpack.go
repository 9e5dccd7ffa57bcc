package oneme

import "encoding/binary"

// The part of MessagePack (msgpack.org, spec.md) that is needed: writing maps
// of strings, and finding out whether a payload is one well-formed map.

// maxDepth bounds nesting, and with it the reader's recursion. Answers to
// SESSION_INIT nest two deep.
const maxDepth = 16

const (
	errPack  = Error("malformed MessagePack")
	errDepth = Error("MessagePack nested too deep")
	errRest  = Error("bytes after the payload")
)

// field is one entry of a map that is written: its value is a string of at most
// 255 bytes, an int of at most 16 bits, or a map of at most 15 fields.
type field struct {
	key   string
	value any
}

func appendMap(b []byte, fields []field) []byte {
	b = append(b, 0x80|byte(len(fields)))
	for _, f := range fields {
		b = appendString(b, f.key)
		switch v := f.value.(type) {
		case string:
			b = appendString(b, v)
		case int:
			if v < 0x80 {
				b = append(b, byte(v))
			} else {
				b = append(b, 0xcd, byte(v>>8), byte(v))
			}
		case []field:
			b = appendMap(b, v)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	if len(s) < 32 {
		b = append(b, 0xa0|byte(len(s)))
	} else {
		b = append(b, 0xd9, byte(len(s)))
	}
	return append(b, s...)
}

// toMap is the same for JSON.
func toMap(fields []field) map[string]any {
	m := make(map[string]any, len(fields))
	for _, f := range fields {
		if sub, ok := f.value.([]field); ok {
			m[f.key] = toMap(sub)
		} else {
			m[f.key] = f.value
		}
	}
	return m
}

// readMap checks that b is one map, and says whether it holds a string under
// name.
func readMap(b []byte, name string) (found bool, err error) {
	r := reader{b}
	n, isMap, err := r.mapLen()
	if err != nil {
		return false, err
	}
	if !isMap {
		return false, errNoMap
	}
	for range n {
		key, err := r.value(1)
		if err != nil {
			return false, err
		}
		value, err := r.value(1)
		if err != nil {
			return false, err
		}
		found = found || key.isString && string(key.text) == name && value.isString
	}
	if len(r.b) > 0 {
		return false, errRest
	}
	return found, nil
}

// reader walks over MessagePack without building anything. Every value takes at
// least a byte, so that no count can make it walk further than the payload.
type reader struct{ b []byte }

// item is what value found; only strings are kept.
type item struct {
	isString bool
	text     []byte
}

// uint reads a big-endian number of n bytes.
func (r *reader) uint(n int) (int, error) {
	if len(r.b) < n {
		return 0, errPack
	}
	var v uint64
	switch n {
	case 1:
		v = uint64(r.b[0])
	case 2:
		v = uint64(binary.BigEndian.Uint16(r.b))
	case 4:
		v = uint64(binary.BigEndian.Uint32(r.b))
	}
	r.b = r.b[n:]
	if v > MaxPayload {
		return 0, errPack // longer than any payload
	}
	return int(v), nil
}

func (r *reader) skip(n int) error {
	_, err := r.take(n)
	return err
}

func (r *reader) take(n int) ([]byte, error) {
	if len(r.b) < n {
		return nil, errPack
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

// mapLen reads the head of a map, if there is one.
func (r *reader) mapLen() (n int, isMap bool, err error) {
	if len(r.b) == 0 {
		return 0, false, errPack
	}
	switch c := r.b[0]; {
	case c&0xf0 == 0x80:
		r.b = r.b[1:]
		return int(c & 0xf), true, nil
	case c == 0xde || c == 0xdf:
		r.b = r.b[1:]
		n, err = r.uint(2 << (c & 1))
		return n, true, err
	}
	return 0, false, nil
}

// value walks over one value and all in it.
func (r *reader) value(depth int) (item, error) {
	if depth > maxDepth {
		return item{}, errDepth
	}
	n, isMap, err := r.mapLen()
	if err != nil {
		return item{}, err
	}
	if isMap {
		return item{}, r.values(2*n, depth)
	}
	c := r.b[0]
	r.b = r.b[1:]
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // fixint, nil, false, true
		return item{}, nil
	case c&0xf0 == 0x90: // fixarray
		return item{}, r.values(int(c&0xf), depth)
	case c == 0xdc || c == 0xdd: // array 16, 32
		if n, err = r.uint(2 << (c & 1)); err != nil {
			return item{}, err
		}
		return item{}, r.values(n, depth)
	case c&0xe0 == 0xa0: // fixstr
		text, err := r.take(int(c & 0x1f))
		return item{true, text}, err
	case c >= 0xd9 && c <= 0xdb: // str 8, 16, 32
		if n, err = r.uint(1 << (c - 0xd9)); err != nil {
			return item{}, err
		}
		text, err := r.take(n)
		return item{true, text}, err
	case c >= 0xc4 && c <= 0xc6: // bin 8, 16, 32
		if n, err = r.uint(1 << (c - 0xc4)); err == nil {
			err = r.skip(n)
		}
		return item{}, err
	case c >= 0xc7 && c <= 0xc9: // ext 8, 16, 32: and one byte of type
		if n, err = r.uint(1 << (c - 0xc7)); err == nil {
			err = r.skip(n + 1)
		}
		return item{}, err
	case c == 0xca || c == 0xcb: // float 32, 64
		return item{}, r.skip(4 << (c - 0xca))
	case c >= 0xcc && c <= 0xcf: // uint 8 to 64
		return item{}, r.skip(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3: // int 8 to 64
		return item{}, r.skip(1 << (c - 0xd0))
	case c >= 0xd4 && c <= 0xd8: // fixext 1 to 16: and one byte of type
		return item{}, r.skip(1<<(c-0xd4) + 1)
	}
	return item{}, errPack // 0xc1, never used
}

func (r *reader) values(n, depth int) error {
	for range n {
		if _, err := r.value(depth + 1); err != nil {
			return err
		}
	}
	return nil
}
