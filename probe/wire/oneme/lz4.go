package oneme

import "bytes"

// MaxUnpacked bounds what a packed payload is unpacked to: 32 kB of LZ4 can say
// 8 MB.
const MaxUnpacked = 64 << 10

const errLZ4 = Error("malformed LZ4")

// frames are how packings begin that are not unpacked here: Zstandard, RFC 8878
// §3.1.1, and LZ4's frame format (lz4/lz4 doc/lz4_Frame_format.md). An LZ4 block,
// which is what MAX's servers are known to send, has no magic number
// (KometTeam/kolibri kolibri-net/src/protocol/packet.rs looks for the same three).
var frames = [...][]byte{{0x28, 0xb5, 0x2f, 0xfd}, {0x04, 0x22, 0x4d, 0x18}}

// unpack is the payload behind a compression flag. known is false where that is
// no LZ4 block: it may be packed in a way of tomorrow's. The error is errTooLong.
func unpack(b []byte) (out []byte, known bool, err error) {
	for _, f := range frames {
		if bytes.HasPrefix(b, f) {
			return nil, false, nil
		}
	}
	switch out, err = unpackLZ4(b); err {
	case nil:
		return out, true, nil
	case errTooLong:
		return nil, false, err
	}
	return nil, false, nil
}

// unpackLZ4 unpacks an LZ4 block (lz4/lz4 doc/lz4_Block_format.md): sequences of
// literals, and matches of at least 4 bytes that begin up to 64 kB back.
func unpackLZ4(b []byte) ([]byte, error) {
	var out []byte
	r := reader{b}
	for {
		token, err := r.take(1)
		if err != nil {
			return nil, errLZ4
		}
		n, err := r.lz4Len(int(token[0] >> 4))
		if err != nil {
			return nil, err
		}
		literals, err := r.take(n)
		if err != nil {
			return nil, errLZ4
		}
		if len(out)+n > MaxUnpacked {
			return nil, errTooLong
		}
		out = append(out, literals...)
		if len(r.b) == 0 { // the last sequence has no match
			return out, nil
		}
		back, err := r.take(2)
		if err != nil {
			return nil, errLZ4
		}
		offset := int(back[0]) | int(back[1])<<8
		if n, err = r.lz4Len(int(token[0] & 15)); err != nil {
			return nil, err
		}
		n += 4
		switch {
		case offset == 0 || offset > len(out):
			return nil, errLZ4
		case len(out)+n > MaxUnpacked:
			return nil, errTooLong
		}
		for range n { // what is copied may be what was just written
			out = append(out, out[len(out)-offset])
		}
	}
}

// lz4Len is a length of 4 bits, and after 15 of as many bytes as are 255 and one
// more.
func (r *reader) lz4Len(n int) (int, error) {
	if n < 15 {
		return n, nil
	}
	for {
		b, err := r.take(1)
		if err != nil {
			return 0, errLZ4
		}
		if n += int(b[0]); n > MaxUnpacked {
			return 0, errTooLong
		}
		if b[0] < 255 {
			return n, nil
		}
	}
}
