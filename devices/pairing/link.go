package pairing

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// maxFrame bounds one message; a long roster takes several.
	maxFrame = 64 << 10
	// editsPerFrame keeps a frame of edits, and of as many hashes, well under it.
	editsPerFrame = 64
	// maxEditFrames bounds what a lying owner can make a device hold.
	maxEditFrames = (trust.MaxEdits+trust.MaxPieces)/editsPerFrame + 1
	version       = "hallway-pair/1"
)

// message is everything that travels on hallway-pair/1.
type message struct {
	Kind   string             `cbor:"1,keyasint"`
	Error  string             `cbor:"2,keyasint,omitempty"`
	Salt   []byte             `cbor:"3,keyasint,omitempty"`
	Window []byte             `cbor:"4,keyasint,omitempty"`
	Share  []byte             `cbor:"5,keyasint,omitempty"`
	Tag    []byte             `cbor:"6,keyasint,omitempty"`
	About  *About             `cbor:"7,keyasint,omitempty"`
	Home   *Invitation        `cbor:"8,keyasint,omitempty"`
	Edits  []trust.SignedEdit `cbor:"9,keyasint,omitempty"`
	More   bool               `cbor:"10,keyasint,omitempty"`
	Waits  []trust.Hash       `cbor:"11,keyasint,omitempty"` // proposals not waited out at the sender
}

// About is what the joining device says of itself.
type About struct {
	Class   devices.Class `cbor:"1,keyasint" json:"class"`
	Name    string        `cbor:"2,keyasint" json:"name"`
	Room    string        `cbor:"3,keyasint" json:"room"`
	Version string        `cbor:"4,keyasint" json:"version"`
}

// Invitation is what the device is about to join, and as what.
type Invitation struct {
	Home     devices.HomeID `cbor:"1,keyasint" json:"home"`
	HomeName string         `cbor:"2,keyasint" json:"home_name"`
	Name     string         `cbor:"3,keyasint" json:"name"`
	Room     string         `cbor:"4,keyasint" json:"room"`
}

// codes are the errors that may travel; their words are made at the receiving side.
var codes = map[string]error{
	"wrong-code": ErrWrongCode, "closed": ErrClosed, "guessing": ErrGuessing, "busy": ErrBusy,
	"removed": trust.ErrRemoved, "full": trust.ErrFull, "not-owner": trust.ErrNotOwner, "no-home": trust.ErrNoHome, "home-exists": trust.ErrHomeExists,
}

// Link is one connection of ALPN hallway-pair/1.
type Link struct {
	conn   io.ReadWriter
	limit  func(time.Duration) // from now, for all that follows
	stop   func()
	binder []byte // TLS exporter
	client bool
	about  *About // of the joining device, once it was identified
	Self   *ecdsa.PublicKey
	Peer   *ecdsa.PublicKey
}

// NewLink wraps a handshaken connection; client is whether we dialled. The exchange is
// bounded in time. The caller closes the connection.
func NewLink(ctx context.Context, conn *tls.Conn, self *ecdsa.PublicKey, client bool) (*Link, error) {
	cs := conn.ConnectionState()
	_, peer, err := trust.PeerID(cs)
	if err != nil {
		return nil, err
	}
	binder, err := cs.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32) // RFC 9266
	if err != nil {
		return nil, err
	}
	first := exchangeTime
	if !client {
		first = silentTime // until First
	}
	if err := conn.SetDeadline(time.Now().Add(first)); err != nil {
		return nil, err
	}
	limit := func(d time.Duration) { _ = conn.SetDeadline(time.Now().Add(d)) } // a dead connection fails at its next read
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	return &Link{conn: conn, limit: limit, binder: binder, client: client, Self: self, Peer: peer, stop: func() { stop() }}, nil
}

// Done frees what NewLink took.
func (l *Link) Done() { l.stop() }

func (l *Link) send(m message) error {
	b, err := cbor.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return errors.New("the pairing message is too large")
	}
	if _, err := l.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return fmt.Errorf("%w (%w)", ErrAborted, err)
	}
	return nil
}

// receive reads a message of the wanted kind; an error that the other side sent comes
// back as that error.
func (l *Link) receive(kind string) (message, error) {
	m, err := readMessage(l.conn)
	switch {
	case err != nil:
		return m, err
	case m.Kind == "error":
		if e, ok := codes[m.Error]; ok {
			return m, e
		}
		return m, fmt.Errorf("%w: the other side said %.80q", ErrAborted, m.Error)
	case m.Kind != kind:
		return m, errShare
	}
	return m, nil
}

func readMessage(r io.Reader) (message, error) {
	var m message
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, fmt.Errorf("%w (%w)", ErrAborted, err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return m, errShare
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return m, fmt.Errorf("%w (%w)", ErrAborted, err)
	}
	if err := decMode.Unmarshal(b, &m); err != nil {
		return m, errShare
	}
	m.clean()
	return m, nil
}

// clean makes what the other side wrote safe to show and to store.
func (m *message) clean() {
	if m.About != nil {
		m.About.Name, m.About.Room = trust.PlainText(m.About.Name), trust.PlainText(m.About.Room)
		m.About.Version, m.About.Class = trust.PlainText(m.About.Version), devices.Class(trust.PlainText(string(m.About.Class)))
	}
	if m.Home != nil {
		m.Home.HomeName, m.Home.Name, m.Home.Room = trust.PlainText(m.Home.HomeName), trust.PlainText(m.Home.Name), trust.PlainText(m.Home.Room)
	}
}

// decMode refuses what no honest peer sends, before anything is allocated for it.
var decMode = mustDecMode()

func mustDecMode() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 64}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}

// refuse tells the other side why, and returns the same error.
func (l *Link) refuse(err error) error {
	code := "failed"
	for c, e := range codes {
		if errors.Is(err, e) {
			code = c
		}
	}
	_ = l.send(message{Kind: "error", Error: code})
	return err
}

// parties binds the exchange to both keys and to this TLS channel.
func (l *Link) parties(prover, verifier *ecdsa.PublicKey, window []byte) Parties {
	p, v := sha256.Sum256(devices.CompressedKey(prover)), sha256.Sum256(devices.CompressedKey(verifier))
	ctx := append(append([]byte(version), l.binder...), window...)
	return Parties{Prover: p[:], Verifier: v[:], Context: ctx}
}

// Prove shows the other side that this one knows the secret, and learns the same of it.
func (l *Link) Prove(secret string) error {
	if err := l.send(message{Kind: "hello"}); err != nil {
		return err
	}
	m, err := l.receive("window")
	if err != nil {
		return err
	}
	if len(m.Salt) != saltLen {
		return errShare
	}
	p, err := newProver(secret, m.Salt, l.parties(l.Self, l.Peer, m.Window))
	if err != nil {
		return err
	}
	if err := l.send(message{Kind: "share", Share: p.shareP}); err != nil {
		return err
	}
	if m, err = l.receive("answer"); err != nil {
		return err
	}
	tag, err := p.finish(m.Share, m.Tag)
	if err != nil {
		return l.refuse(err)
	}
	if err := l.send(message{Kind: "confirm", Tag: tag}); err != nil {
		return err
	}
	_, err = l.receive("proved")
	return err
}

// First reads what a client wants: "hello" to prove a code, "resume" after a crash.
func (l *Link) First() (string, error) {
	m, err := readMessage(l.conn)
	if err != nil {
		return "", err
	}
	l.bound(exchangeTime)
	return m.Kind, nil
}

// bound limits the time of all that follows.
func (l *Link) bound(d time.Duration) {
	if l.limit != nil {
		l.limit(d)
	}
}

// Verify takes a prover through an open window. On success the window is closed. It
// follows First. The one place for an exchange is taken only with the prover's share,
// which costs a guess: who connects and says nothing keeps nobody out.
func (l *Link) Verify(w *Window) error {
	if w == nil {
		return l.refuse(ErrClosed)
	}
	if err := w.Err(); err != nil {
		return l.refuse(err)
	}
	if err := l.send(message{Kind: "window", Salt: w.w.Salt, Window: w.w.ID}); err != nil {
		return err
	}
	l.bound(shareTime)
	m, err := l.receive("share")
	if err != nil {
		return err
	}
	l.bound(exchangeTime)
	release, err := w.begin()
	if err != nil {
		return l.refuse(err)
	}
	defer release()
	if err := w.attempt(); err != nil {
		return l.refuse(err)
	}
	if err := l.prove(w, m.Share); err != nil {
		w.failed()
		return err
	}
	if err := w.won(); err != nil {
		return l.refuse(err)
	}
	return l.send(message{Kind: "proved"})
}

// prove is one counted guess: it succeeds only if the other side knows the secret, over
// this very channel.
func (l *Link) prove(w *Window, shareP []byte) error {
	v := verifierWith(w.w.W0, w.w.L, randomScalar(), l.parties(l.Peer, l.Self, w.w.ID))
	shareV, tag, err := v.answer(shareP)
	if err != nil {
		return l.refuse(err)
	}
	if err := l.send(message{Kind: "answer", Share: shareV, Tag: tag}); err != nil {
		return err
	}
	m, err := l.receive("confirm")
	if err != nil {
		return err
	}
	if err := v.confirm(m.Tag); err != nil {
		return l.refuse(err)
	}
	return nil
}
