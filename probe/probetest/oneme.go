package probetest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"

	"github.com/coder/websocket"
)

// OneMe is a MAX messaging server up to its answer to SESSION_INIT.
type OneMe struct {
	Cmd    byte // of the answer: 0 is 1, a success; 3 has an error in it
	Packed byte // the compression flag of the answer; its payload is then an LZ4 block
	// Change makes of an answer what is sent, each a write or a message; nil:
	// the answer. Over a WebSocket of text it is JSON.
	Change func(answer []byte) [][]byte
}

func (s OneMe) cmd() byte {
	if s.Cmd == 0 {
		return 1
	}
	return s.Cmd
}

func (s OneMe) change(answer []byte) [][]byte {
	if s.Change == nil {
		return [][]byte{answer}
	}
	return s.Change(answer)
}

// Serve answers on one connection, whose TLS is somebody else's matter.
func (s OneMe) Serve(c io.ReadWriter) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[6:])&0xffffff)
	if _, err := io.ReadFull(c, payload); err != nil {
		return
	}
	answer := s.answer(append(head, payload...))
	if answer == nil {
		return
	}
	for _, b := range s.change(answer) {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
	io.Copy(io.Discard, c)
}

// answer is the answer to one binary frame, nil if that is no SESSION_INIT.
func (s OneMe) answer(frame []byte) []byte {
	if len(frame) < 11 || frame[0] != 10 || frame[1] != 0 || frame[4] != 0 || frame[5] != 6 || frame[6] != 0 ||
		frame[10]&0xf0 != 0x80 || int(binary.BigEndian.Uint32(frame[6:])) != len(frame)-10 {
		return nil
	}
	payload := "\x83\xa9callsSeed\xcd\x12\x34\xa8location\xa2RU\xb0reg-country-code\x92\xa2AM\xa2KZ"
	if s.cmd() == 3 {
		payload = "\x82\xa5error\xa9proto.ver\xa7message\xabUnsupported"
	}
	if s.Packed != 0 {
		payload = "\xf0" + string([]byte{byte(len(payload) - 15)}) + payload // literals alone
	}
	b := []byte{10, s.cmd(), frame[2], frame[3], 0, 6, s.Packed, 0, 0, byte(len(payload))}
	return append(b, payload...)
}

// ServeHTTP is the WebSocket at /websocket, which wants the origin of the web
// client and speaks JSON or binary frames as it is spoken to.
func (s OneMe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/websocket" || r.Header.Get("Origin") != "https://web.max.ru" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := context.Background()
	kind, b, err := ws.Read(ctx)
	if err != nil {
		return
	}
	answer := s.answer(b)
	if kind == websocket.MessageText {
		answer = s.text(b)
	}
	if answer == nil {
		return
	}
	for _, b := range s.change(answer) {
		if ws.Write(ctx, kind, b) != nil {
			return
		}
	}
	ws.Read(ctx)
}

func (s OneMe) text(b []byte) []byte {
	var q struct {
		Ver, Cmd, Seq, Opcode int
		Payload               struct {
			UserAgent struct{ DeviceType string }
			DeviceID  string
		}
	}
	if json.Unmarshal(b, &q) != nil || q.Ver != 11 || q.Cmd != 0 || q.Opcode != 6 || q.Payload.DeviceID == "" || q.Payload.UserAgent.DeviceType != "WEB" {
		return nil
	}
	payload := map[string]any{"callsSeed": 4660, "location": "RU"}
	if s.cmd() == 3 {
		payload = map[string]any{"error": "proto.ver", "message": "Unsupported"}
	}
	a, err := json.Marshal(map[string]any{"ver": 11, "cmd": s.cmd(), "seq": q.Seq, "opcode": 6, "payload": payload})
	if err != nil {
		panic(err)
	}
	return a
}
