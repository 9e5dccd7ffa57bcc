package interop

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/whatsmeow/proto/waCert"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/socket"
	"go.mau.fi/whatsmeow/util/keys"
	"google.golang.org/protobuf/proto"

	"github.com/messenger-probe/messenger-probe/probe"
	"github.com/messenger-probe/messenger-probe/probe/probetest"
	"github.com/messenger-probe/messenger-probe/probe/wire/noise"
)

// whatsmeow is a responder made of whatsmeow's handshake, its protobufs, and
// signatures of libsignal.
type whatsmeow struct {
	root, intermediate, static *keys.KeyPair
	notBefore, notAfter        time.Time
	intermediateIssuer         uint32
	leafIssuer                 uint32
	heard                      chan int // bytes after the client's hello
}

func newWhatsmeow() *whatsmeow {
	return &whatsmeow{
		root: keys.NewKeyPair(), intermediate: keys.NewKeyPair(), static: keys.NewKeyPair(),
		notBefore: time.Now().Add(-time.Hour), notAfter: time.Now().Add(time.Hour),
		leafIssuer: 7, heard: make(chan int, 16),
	}
}

func (s *whatsmeow) certificate(serial, issuer uint32, key, signer *keys.KeyPair) *waCert.CertChain_NoiseCertificate {
	details, err := proto.Marshal(&waCert.CertChain_NoiseCertificate_Details{
		Serial: &serial, IssuerSerial: &issuer, Key: key.Pub[:],
		NotBefore: proto.Uint64(uint64(s.notBefore.Unix())), NotAfter: proto.Uint64(uint64(s.notAfter.Unix())),
	})
	if err != nil {
		panic(err)
	}
	signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*signer.Priv), details)
	return &waCert.CertChain_NoiseCertificate{Details: details, Signature: signature[:]}
}

func (s *whatsmeow) chain() []byte {
	b, err := proto.Marshal(&waCert.CertChain{
		Leaf:         s.certificate(8, s.leafIssuer, s.static, s.intermediate),
		Intermediate: s.certificate(7, s.intermediateIssuer, s.intermediate, s.root),
	})
	if err != nil {
		panic(err)
	}
	return b
}

// answer is the frame that answers a client's HandshakeMessage, and the chain
// that is in it.
func (s *whatsmeow) answer(hello []byte) (frame, chain []byte, err error) {
	var msg waWa6.HandshakeMessage
	if err := proto.Unmarshal(hello, &msg); err != nil {
		return nil, nil, err
	}
	if msg.ClientFinish != nil || len(msg.GetClientHello().GetEphemeral()) != 32 {
		return nil, nil, fmt.Errorf("not a client hello: %v", &msg)
	}
	client := [32]byte(msg.GetClientHello().GetEphemeral())
	ephemeral := keys.NewKeyPair()
	nh := socket.NewNoiseHandshake()
	nh.Start(socket.NoiseStartPattern, socket.WAConnHeader)
	nh.Authenticate(client[:])
	nh.Authenticate(ephemeral.Pub[:])
	if err := nh.MixSharedSecretIntoKey(*ephemeral.Priv, client); err != nil {
		return nil, nil, err
	}
	static := nh.Encrypt(s.static.Pub[:])
	if err := nh.MixSharedSecretIntoKey(*s.static.Priv, client); err != nil {
		return nil, nil, err
	}
	chain = s.chain()
	frame, err = proto.Marshal(&waWa6.HandshakeMessage{ServerHello: &waWa6.HandshakeMessage_ServerHello{
		Ephemeral: ephemeral.Pub[:], Static: static, Payload: nh.Encrypt(chain),
	}})
	return frame, chain, err
}

func (s *whatsmeow) serve(c io.ReadWriter) {
	r := bufio.NewReader(c)
	head := make([]byte, len(socket.WAConnHeader)+socket.FrameLengthSize)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) != string(socket.WAConnHeader) {
		return
	}
	hello := make([]byte, int(head[4])<<16|int(head[5])<<8|int(head[6]))
	if _, err := io.ReadFull(r, hello); err != nil {
		return
	}
	b, _, err := s.answer(hello)
	if err != nil {
		return
	}
	c.Write(append([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...))
	n, _ := io.Copy(io.Discard, r)
	s.heard <- int(n)
}

func (s *whatsmeow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"web.whatsapp.com"}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	s.serve(websocket.NetConn(context.Background(), ws, websocket.MessageBinary))
}

func TestWhatsmeow(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*whatsmeow)
		root    *[32]byte
		failure probe.Failure
	}{
		{"trusted", func(*whatsmeow) {}, nil, ""},
		{"another root", func(*whatsmeow) {}, keys.NewKeyPair().Pub, probe.FailureSSLUnknownAuthority},
		{"WhatsApp's root", func(*whatsmeow) {}, &[32]byte{}, probe.FailureSSLUnknownAuthority},
		{"expired", func(s *whatsmeow) { s.notAfter = time.Now().Add(-time.Hour) }, nil, probe.FailureSSLInvalidCertificate},
		{"intermediate of another issuer", func(s *whatsmeow) { s.intermediateIssuer = 1 }, nil, probe.FailureSSLUnknownAuthority},
		{"leaf of another issuer", func(s *whatsmeow) { s.leafIssuer = 1 }, nil, probe.FailureSSLUnknownAuthority},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newWhatsmeow()
			c.change(s)
			root := s.root.Pub
			if c.root != nil {
				root = c.root
			}
			const name = "web.whatsapp.com"
			ws, trust := serveHTTPS(t, name, s)
			for _, q := range []probe.Noise{
				{Addr: probetest.ServeTCP(t, func(c net.Conn) { s.serve(c) }), Root: *root},
				{Addr: ws, Over: "websocket", ServerName: name, Trust: trust, Root: *root},
			} {
				step, n := last(t, q)
				if step.Op != probe.OpReply || step.Failure != c.failure {
					t.Errorf("%q, step %d, %s: %q %+v: %v", q.Over, n, step.Op, step.Failure, step.Reply, step.Err)
				}
				if n := <-s.heard; n != 0 {
					t.Errorf("%q: %d bytes after the hello", q.Over, n)
				}
			}
		})
	}
}

// Signatures of libsignal are taken, and altered ones are not.
func TestLibsignal(t *testing.T) {
	for range 100 {
		s := newWhatsmeow()
		server := noise.Server{Static: *s.static.Pub, Chain: s.chain()}
		if err := server.Verify(*s.root.Pub, time.Now()); err != nil {
			t.Fatalf("root %x, chain %x: %v", *s.root.Pub, server.Chain, err)
		}
		var chain waCert.CertChain
		if err := proto.Unmarshal(server.Chain, &chain); err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{chain.Leaf.Signature, chain.Intermediate.Signature, chain.Leaf.Details[2:], chain.Intermediate.Details} {
			bit := make([]byte, 2)
			rand.Read(bit)
			at := int(bit[0]) % len(b)
			b[at] ^= 1 << (bit[1] % 8)
			altered, err := proto.Marshal(&chain)
			if err != nil {
				t.Fatal(err)
			}
			if (noise.Server{Static: *s.static.Pub, Chain: altered}).Verify(*s.root.Pub, time.Now()) == nil {
				t.Fatalf("root %x, altered chain %x was believed", *s.root.Pub, altered)
			}
			b[at] ^= 1 << (bit[1] % 8)
		}
	}
}

var record = flag.Bool("record", false, "make the exchange that the tests of probe/wire/noise replay anew")

const recording = "../wire/noise/testdata/whatsmeow.json"

// The exchange that the tests of probe/wire/noise replay is one that whatsmeow
// itself can read.
func TestRecording(t *testing.T) {
	if *record {
		writeRecording(t)
	}
	b, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	var text map[string]string
	if err := json.Unmarshal(b, &text); err != nil {
		t.Fatal(err)
	}
	bytes := make(map[string][]byte)
	for k, v := range text {
		if bytes[k], err = hex.DecodeString(v); err != nil {
			t.Fatal(err)
		}
	}
	var msg waWa6.HandshakeMessage
	if err := proto.Unmarshal(bytes["frame"], &msg); err != nil {
		t.Fatal(err)
	}
	hello, key := msg.GetServerHello(), keys.NewKeyPairFromPrivateKey([32]byte(bytes["client"]))
	nh := socket.NewNoiseHandshake()
	nh.Start(socket.NoiseStartPattern, socket.WAConnHeader)
	nh.Authenticate(key.Pub[:])
	nh.Authenticate(hello.GetEphemeral())
	if err := nh.MixSharedSecretIntoKey(*key.Priv, [32]byte(hello.GetEphemeral())); err != nil {
		t.Fatal(err)
	}
	static, err := nh.Decrypt(hello.GetStatic())
	if err != nil || string(static) != string(bytes["static"]) {
		t.Fatalf("static key %x: %v", static, err)
	}
	if err := nh.MixSharedSecretIntoKey(*key.Priv, [32]byte(static)); err != nil {
		t.Fatal(err)
	}
	if chain, err := nh.Decrypt(hello.GetPayload()); err != nil || string(chain) != string(bytes["chain"]) {
		t.Fatalf("chain %x: %v", chain, err)
	}
}

func writeRecording(t *testing.T) {
	t.Helper()
	s := newWhatsmeow()
	s.notBefore, s.notAfter = time.Unix(1700000000, 0), time.Unix(1800000000, 0)
	client := keys.NewKeyPair()
	hello, err := proto.Marshal(&waWa6.HandshakeMessage{ClientHello: &waWa6.HandshakeMessage_ClientHello{Ephemeral: client.Pub[:]}})
	if err != nil {
		t.Fatal(err)
	}
	frame, chain, err := s.answer(hello)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(map[string]string{
		"client": hex.EncodeToString(client.Priv[:]), "hello": hex.EncodeToString(hello), "frame": hex.EncodeToString(frame),
		"root": hex.EncodeToString(s.root.Pub[:]), "static": hex.EncodeToString(s.static.Pub[:]), "chain": hex.EncodeToString(chain),
	}, "", "\t")
	if err == nil {
		err = os.WriteFile(recording, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
