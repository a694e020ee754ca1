package main

import (
	"crypto/ecdsa"
	"encoding/binary"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

// The frames of hallway-overlay/1, written down a second time: 4 bytes of length, a byte
// of kind, CBOR.
const (
	kindPing    = 1
	kindHello   = 2
	kindEdits   = 3
	kindDigest  = 4
	kindRecords = 5
	kindState   = 6
	kindLog     = 7
	kindWant    = 8
	kindChunk   = 9
)

type frame struct {
	Heads   [][32]byte    `cbor:"1,keyasint,omitempty"`
	Reply   bool          `cbor:"2,keyasint,omitempty"`
	Edits   []signed      `cbor:"3,keyasint,omitempty"`
	Digest  []writerSum   `cbor:"4,keyasint,omitempty"`
	Records []signed      `cbor:"5,keyasint,omitempty"`
	Clock   int64         `cbor:"6,keyasint,omitempty"`
	State   []writerState `cbor:"7,keyasint,omitempty"`
	More    bool          `cbor:"8,keyasint,omitempty"`
	Want    *piece        `cbor:"9,keyasint,omitempty"`
	Chunk   *piece        `cbor:"10,keyasint,omitempty"`
}

type signed struct {
	Raw []byte `cbor:"1,keyasint"`
	Sig []byte `cbor:"2,keyasint"`
}

type writerSum struct {
	_      struct{} `cbor:",toarray"`
	Writer devices.NodeID
	Sum    [8]byte
}

type writerState struct {
	_         struct{} `cbor:",toarray"`
	Writer    devices.NodeID
	Registers []registerState
	First     uint64
	Count     uint64
	Blocks    [][8]byte
}

type registerState struct {
	_        struct{} `cbor:",toarray"`
	Kind     string
	Subject  string
	Epoch    uint64
	Sequence uint64
	Hash     [8]byte
}

// piece of a blob, asked for or sent.
type piece struct {
	Hash   [32]byte `cbor:"1,keyasint"`
	Offset uint32   `cbor:"2,keyasint"`
	Total  uint32   `cbor:"3,keyasint,omitempty"`
	Data   []byte   `cbor:"4,keyasint,omitempty"`
}

type record struct {
	Version  int             `cbor:"1,keyasint"`
	Home     devices.HomeID  `cbor:"2,keyasint"`
	Subject  string          `cbor:"3,keyasint"`
	Kind     string          `cbor:"4,keyasint"`
	Writer   devices.NodeID  `cbor:"5,keyasint"`
	Epoch    uint64          `cbor:"6,keyasint"`
	Sequence uint64          `cbor:"7,keyasint"`
	TTL      uint32          `cbor:"8,keyasint"`
	Head     [32]byte        `cbor:"9,keyasint"`
	Body     cbor.RawMessage `cbor:"10,keyasint"`
	Shape    int             `cbor:"11,keyasint,omitempty"`
}

func encode(v any) []byte {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	b, err := mode.Marshal(v)
	if err != nil {
		panic(err) // own types
	}
	return b
}

func frameOf(kind byte, body []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	return append(append(out, kind), body...)
}

// sign seals anything with a key, whatever it claims.
func sign(key *ecdsa.PrivateKey, v any) signed {
	raw := encode(v)
	sig, err := trust.SignRaw(key, raw)
	if err != nil {
		panic(err) // the key is good
	}
	return signed{raw, sig}
}

// readFrame returns the kind of what a node says.
func readFrame(r io.Reader) (byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > 1<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	_, err := io.CopyN(io.Discard, r, int64(n-1))
	return head[4], err
}
