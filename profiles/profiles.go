// Package profiles owns the kinds of device: what a TV, a camera or a doorbell can
// do, in which order it prefers codecs, how it behaves when called, and which
// pipelines feed and render its media on each platform. A profile is a class of
// device, not a person.
//
// Profiles are embedded YAML, decoded strictly: an unknown key is an error that
// names file and line. Everything here is pure and safe for concurrent use; the
// package starts no goroutine and refuses to know anything about networks.
package profiles

import "time"

// Direction of one medium, seen from the device that states it (RFC 3264 section 5.1).
type Direction string

// The four directions of RFC 3264.
const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

// Codec is one entry of a codec list, named as in the RTP payload registry.
type Codec struct {
	Name      string `yaml:"name" json:"name" cbor:"1,keyasint"`                                       // "opus", "G722", "PCMU", "PCMA", "H264", "VP8"
	ClockRate uint32 `yaml:"clock" json:"clock" cbor:"2,keyasint"`                                     // Hz
	Channels  uint16 `yaml:"channels,omitempty" json:"channels,omitempty" cbor:"3,keyasint,omitempty"` // audio only
	Fmtp      string `yaml:"fmtp,omitempty" json:"fmtp,omitempty" cbor:"4,keyasint,omitempty"`         // RFC 8866 section 6.15
}

// Medium says what a device does with one kind of media.
type Medium struct {
	Direction Direction `yaml:"direction" json:"direction" cbor:"1,keyasint"`
	Codecs    []Codec   `yaml:"codecs,omitempty" json:"codecs,omitempty" cbor:"2,keyasint,omitempty"` // in order of preference
	// Makes names those of the codecs that the device's source can make, in its order of
	// preference: media is passed through, never converted. Empty is all of them.
	Makes []string `yaml:"-" json:"makes,omitempty" cbor:"3,keyasint,omitempty"`
}

// Capabilities of a device: what may be offered to it and what it may offer.
type Capabilities struct {
	Audio Medium `yaml:"audio" json:"audio" cbor:"1,keyasint"`
	Video Medium `yaml:"video" json:"video" cbor:"2,keyasint"`
}

// Behaviour holds the defaults of a class of device.
type Behaviour struct {
	AutoAnswer  bool          `yaml:"auto-answer" json:"auto_answer"`   // answers without a person, as a camera does for viewers
	RingTimeout time.Duration `yaml:"ring-timeout" json:"ring_timeout"` // how long it rings before 480
	HalfDuplex  bool          `yaml:"half-duplex" json:"half_duplex"`   // no echo cancelling in its pipeline
	MaxCalls    int           `yaml:"max-calls" json:"max_calls"`       // further callers get 486
	Automata    bool          `yaml:"automata" json:"automata"`         // RFC 3840: no person behind it
	Mobility    string        `yaml:"mobility" json:"mobility"`         // RFC 3840: "fixed" or "mobile"
	Duplex      string        `yaml:"duplex" json:"duplex"`             // RFC 3840: full, half, receive-only, send-only
}

// With is the behaviour of a device with this source pipeline; nil changes nothing. A
// device whose loudspeaker its own microphone hears is half duplex (RFC 3840 section 10.7).
func (b Behaviour) With(source *Pipeline) Behaviour {
	if source == nil || source.Audio == nil {
		return b
	}
	b.HalfDuplex = !source.EchoCancels
	switch {
	case b.HalfDuplex && b.Duplex == "full":
		b.Duplex = "half"
	case !b.HalfDuplex && b.Duplex == "half":
		b.Duplex = "full"
	}
	return b
}
