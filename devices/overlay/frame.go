package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallway-home/hallway/devices/trust"
)

// MaxFrame bounds one frame: an exchange of digests and bodies is cut into frames of at
// most this size (conventions: 256 KiB per exchange).
const MaxFrame = 256 << 10

type frameKind byte

const (
	framePing    frameKind = 1 // proof of life, every second, whatever else flows
	frameHello   frameKind = 2 // the roster heads of the sender
	frameEdits   frameKind = 3 // roster edits, parents first
	frameDigest  frameKind = 4 // which state of each record the sender has
	frameRecords frameKind = 5 // records, new or asked for by a digest
)

// frame is everything that travels between two nodes on an overlay flow.
type frame struct {
	Kind    frameKind          `cbor:"-"`
	Heads   []trust.Hash       `cbor:"1,keyasint,omitempty"`
	Reply   bool               `cbor:"2,keyasint,omitempty"` // hello and digest: this answers yours
	Edits   []trust.SignedEdit `cbor:"3,keyasint,omitempty"`
	Digest  []digestEntry      `cbor:"4,keyasint,omitempty"`
	Records []Signed           `cbor:"5,keyasint,omitempty"`
}

var errFrame = errors.New("the peer sent a frame that is malformed or too large")

// encodeFrame gives length (4 bytes, big endian, of what follows), kind, CBOR.
func encodeFrame(f frame) ([]byte, error) {
	body := []byte{}
	if f.Kind != framePing {
		b, err := marshal(f)
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

// readFrame reads one frame. Kinds that this version does not know are returned with
// their kind alone, for the caller to skip.
func readFrame(r io.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > MaxFrame {
		return frame{}, errFrame
	}
	f := frame{Kind: frameKind(head[4])}
	body := make([]byte, n-1)
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, err
	}
	if f.Kind == framePing || f.Kind > frameRecords || f.Kind == 0 {
		return f, nil
	}
	if err := decMode.Unmarshal(body, &f); err != nil {
		return frame{}, fmt.Errorf("%w: %w", errFrame, err)
	}
	return f, nil
}
