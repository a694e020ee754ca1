package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// MaxFrame bounds one frame.
	MaxFrame = 256 << 10
	// maxExchange bounds the digests and bodies that answer one digest (conventions:
	// 256 KiB per exchange); who got less than there was asks again.
	maxExchange = 256 << 10
	// frameTarget is where a list is cut into the next frame, so that a ping never waits
	// long behind one on a slow radio.
	frameTarget = 64 << 10
)

type frameKind byte

const (
	framePing    frameKind = 1 // proof of life; answered at once (see Mesh.ping)
	frameHello   frameKind = 2 // the roster heads of the sender
	frameEdits   frameKind = 3 // roster edits, parents first
	frameDigest  frameKind = 4 // one hash for all that each writer said
	frameRecords frameKind = 5 // registers, new or asked for by a digest
	frameState   frameKind = 6 // which state of each record of some writers the sender has
	frameLog     frameKind = 7 // log entries in their order
	frameWant    frameKind = 8 // asks for a piece of a blob
	frameChunk   frameKind = 9 // a piece of a blob
)

// frame is everything that travels between two nodes on an overlay flow.
type frame struct {
	Kind    frameKind          `cbor:"-"`
	Heads   []trust.Hash       `cbor:"1,keyasint,omitempty"`
	Reply   bool               `cbor:"2,keyasint,omitempty"` // this answers yours: all that you lack was sent before it
	Edits   []trust.SignedEdit `cbor:"3,keyasint,omitempty"`
	Digest  []records.Sum      `cbor:"4,keyasint,omitempty"`
	Records []records.Signed   `cbor:"5,keyasint,omitempty"`
	Clock   int64              `cbor:"6,keyasint,omitempty"` // milliseconds since 1970 on the sender's clock
	State   []records.State    `cbor:"7,keyasint,omitempty"`
	More    bool               `cbor:"8,keyasint,omitempty"` // there is more: send another digest
	Want    *blobWant          `cbor:"9,keyasint,omitempty"`
	Chunk   *blobChunk         `cbor:"10,keyasint,omitempty"`
}

// blobWant asks for the piece that starts at Offset.
type blobWant struct {
	Hash   [32]byte `cbor:"1,keyasint"`
	Offset uint32   `cbor:"2,keyasint"`
}

// blobChunk is one piece; Total is the size of the blob, 0 if it is not here.
type blobChunk struct {
	Hash   [32]byte `cbor:"1,keyasint"`
	Offset uint32   `cbor:"2,keyasint"`
	Total  uint32   `cbor:"3,keyasint"`
	Data   []byte   `cbor:"4,keyasint"`
}

var errFrame = errors.New("the peer sent a frame that is malformed or too large")

// barePing is the frame of a ping without a clock.
var barePing = []byte{0, 0, 0, 1, byte(framePing)}

// encodeFrame gives length (4 bytes, big endian, of what follows), kind, CBOR. A ping
// without a clock has no CBOR.
func encodeFrame(f frame) ([]byte, error) {
	body := []byte{}
	if f.Kind != framePing || f.Clock != 0 {
		b, err := records.Marshal(f)
		if err != nil {
			return nil, err
		}
		body = b
	}
	if len(body)+1 > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, len(body))
	}
	out := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(out, uint32(len(body)+1))
	out[4] = byte(f.Kind)
	return append(out, body...), nil
}

// rawFrame is a frame as it came, not looked at yet.
type rawFrame struct {
	kind frameKind
	body []byte
}

// size is what it had on the wire, in bytes.
func (r rawFrame) size() int { return 5 + len(r.body) }

func readFrame(r io.Reader) (rawFrame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return rawFrame{}, err
	}
	n := int(binary.BigEndian.Uint32(head[:4]))
	if n < 1 || n > MaxFrame {
		return rawFrame{}, errFrame
	}
	raw := rawFrame{frameKind(head[4]), nil}
	if n > 1 {
		raw.body = make([]byte, n-1)
	}
	_, err := io.ReadFull(r, raw.body)
	return raw, err
}

// decode gives what the frame says. Kinds that this version does not know have their kind
// alone, for the caller to skip.
func (r rawFrame) decode() (frame, error) {
	f := frame{Kind: r.kind}
	if len(r.body) == 0 && r.kind == framePing || r.kind > frameChunk || r.kind == 0 {
		return f, nil
	}
	if err := records.Unmarshal(r.body, &f); err != nil {
		return frame{}, fmt.Errorf("%w: %w", errFrame, err)
	}
	return f, nil
}

// cut groups items so that each group is about frameTarget in size.
func cut[T any](items []T, size func(T) int) [][]T {
	var out [][]T
	start, sum := 0, 0
	for i, x := range items {
		n := size(x)
		if i > start && sum+n > frameTarget {
			out = append(out, items[start:i])
			start, sum = i, 0
		}
		sum += n
	}
	if start < len(items) {
		out = append(out, items[start:])
	}
	return out
}
