package mtproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func FuzzReadFrame(f *testing.F) {
	for _, framing := range []Framing{Abridged, Intermediate, Padded} {
		f.Add(byte(framing), framing.appendFrame(nil, make([]byte, 100)))
		f.Add(byte(framing), framing.appendFrame(nil, make([]byte, 600)))
		f.Add(byte(framing), []byte{0x7f, 0xff, 0xff, 0xff})
		f.Add(byte(framing), []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		f.Add(byte(framing), []byte{})
	}
	f.Fuzz(func(t *testing.T, framing byte, b []byte) {
		fr := Framing(framing % 3)
		got, err := fr.readFrame(bufio.NewReader(bytes.NewReader(b)))
		slow, err2 := fr.readFrame(bufio.NewReader(iotest.OneByteReader(bytes.NewReader(b))))
		if !bytes.Equal(got, slow) || !errors.Is(err2, err) {
			t.Errorf("a byte at a time: %v, at once: %v", err2, err)
		}
		switch {
		case err == nil && (len(got) < 4 || len(got) > MaxFrame || len(got) >= len(b)):
			t.Errorf("%d bytes out of %d", len(got), len(b))
		case err != nil && err != ErrFrame && err != ErrMalformed && err != io.EOF && err != io.ErrUnexpectedEOF:
			t.Errorf("unexpected error %v", err)
		}
	})
}

func FuzzParseResPQ(f *testing.F) {
	msg, nonce := samplePQ(f)
	f.Add(msg)
	f.Add(append(bytes.Clone(msg), make([]byte, 15)...))
	f.Add(unhex(f, "6cfeffff"))
	f.Add(unhex(f, sampleHeader+sampleBody+"01000000"+"85fd64de851d9dd0"))
	f.Add(ReqPQ(nonce, msgTime))
	f.Fuzz(func(t *testing.T, b []byte) {
		res, err := ParseResPQ(b, nonce)
		var code ServerError
		switch {
		case err == nil:
			if res.Nonce != nonce || len(res.Fingerprints) > maxFingerprints || len(res.Fingerprints)*8 > len(b) {
				t.Errorf("%+v out of %d bytes", res, len(b))
			}
		case errors.As(err, &code):
			if code > -400 || code <= -600 || len(b) >= headerLen {
				t.Errorf("code %d out of %d bytes", code, len(b))
			}
		case err != ErrNonce && err != ErrMalformed:
			t.Errorf("unexpected error %v", err)
		}
	})
}

// A Challenge of zeros, so that a mutation can get as far as the decryption.
func FuzzCheck(f *testing.F) {
	body := append(unhex(f, "5c07e8d0"), make([]byte, 32)...)
	sealed := bytes.Repeat([]byte{1}, 592)
	msg := appendBytes(bytes.Clone(body), sealed)
	f.Add(append(appendHeader(nil, msgTime, len(msg)), msg...))
	f.Add(unhex(f, "53feffff"))
	short := appendBytes(bytes.Clone(body), make([]byte, 16))
	f.Add(append(appendHeader(nil, msgTime, len(short)), short...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if new(Challenge).Check(b) == nil {
			t.Error("an answer made up without the key was believed")
		}
	})
}

// The TL strings of any message come back as they went in.
func FuzzBytes(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 253))
	f.Add(bytes.Repeat([]byte{1}, 254))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 1<<24 {
			return
		}
		r := reader{b: appendBytes(nil, b)}
		if got := r.bytes(); !bytes.Equal(got, b) || r.short || len(r.b) != 0 {
			t.Errorf("%x came back as %x", b, got)
		}
		r = reader{b: b}
		if got := r.bytes(); len(got) > len(b) {
			t.Errorf("%d bytes out of %d", len(got), len(b))
		}
	})
}
