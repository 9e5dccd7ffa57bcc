package noise

import "encoding/binary"

// A message is a protobuf message with small field numbers: the last value of
// each field 1 to 5, as proto2 decoders keep it. Others are skipped.
type message struct {
	bytes  [6][]byte
	number [6]uint64
}

// parse decodes one level of a message
// (protobuf.dev/programming-guides/encoding). Fields alias b.
func parse(b []byte) (m message, ok bool) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return message{}, false
		}
		b = b[n:]
		var data []byte
		var value uint64
		switch tag & 7 {
		case 0: // varint
			value, n = binary.Uvarint(b)
			if n <= 0 {
				return message{}, false
			}
		case 1: // 8 bytes
			n = 8
		case 2: // length and bytes
			length, k := binary.Uvarint(b)
			if k <= 0 || length > uint64(len(b)-k) {
				return message{}, false
			}
			n = k + int(length)
			data = b[k:n]
		case 5: // 4 bytes
			n = 4
		default:
			return message{}, false
		}
		if n > len(b) {
			return message{}, false
		}
		b = b[n:]
		if field := tag >> 3; field < 6 {
			switch tag & 7 {
			case 0:
				m.number[field] = value
			case 2:
				m.bytes[field] = data
			}
		}
	}
	return m, true
}
