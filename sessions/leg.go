package sessions

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Why media cannot be set up.
var (
	ErrNoCommonCodec = errors.New("the two devices share no codec")
	ErrMediaFailed   = errors.New("sound and picture could not be connected")
)

// Media makes legs; sessions/rtc has the one for members.
type Media interface {
	NewLeg(LegConfig) (Leg, error)
}

// LegConfig says what one side does in one call.
type LegConfig struct {
	CallID       string // Session-ID of the call
	Remote       string // slug of the other side, for file names and logs
	Peer         devices.NodeID
	Capabilities profiles.Capabilities
	Wish         Wish // at the start
	HalfDuplex   bool // while the far end speaks, silence is sent
	Logger       *slog.Logger
	Endpoint     Endpoint // source and sink; nil: the device's own
	// Direct makes a leg without a network, from this source to the device's own sink: there is
	// no offer and no answer.
	Direct Endpoint
}

// Wish is what the person at this side wants of the media of a call now, within what the
// device can do. The zero value is all of it. What both sides want is negotiated (RFC 3264);
// what must not leave this device stops at once, whatever the other side says.
type Wish struct {
	Hold  bool               // neither sends nor receives, for now
	Mute  bool               // sends no sound
	Video profiles.Direction // of the picture; empty is SendRecv
}

// Of is the direction that the wish leaves of what the device can do for one kind.
func (w Wish) Of(kind string, can profiles.Direction) profiles.Direction {
	switch {
	case w.Hold:
		return profiles.Inactive
	case kind == "audio" && w.Mute:
		return profiles.Join(false, can.Receives())
	case kind == "video" && w.Video != "":
		return profiles.Join(can.Sends() && w.Video.Sends(), can.Receives() && w.Video.Receives())
	}
	return can
}

// Asks reports whether the wish calls for media of a kind that the session has no section
// of yet. A device that only shows what comes never asks for a picture.
func (w Wish) Asks(kind string) bool {
	return kind == "audio" || w.Video == "" || w.Video.Sends()
}

// Leg is one media connection (RFC 8829 offer and answer). Nothing is opened before
// Start. Methods are called one after the other, Close from anywhere.
type Leg interface {
	Offer(ctx context.Context) ([]byte, error)
	Answer(ctx context.Context, offer []byte) ([]byte, error) // ErrNoCommonCodec
	SetAnswer(ctx context.Context, answer []byte) error
	Start(ctx context.Context) error // opens source and sink; both sides have accepted
	Media() []MediaState
	Stats() LegStats
	Counters() LegStats         // Stats without RTT, Local and Remote, which it costs more to know
	Connected() <-chan struct{} // closed once packets pass and both keys are proved
	Done() <-chan struct{}      // closed when the leg failed by itself
	Err() error
	// Broken holds a signal when the path was lost but may be found again by an ICE restart.
	Broken() <-chan struct{}
	// Reoffer makes an offer within the session; restart looks for a new path, too. SetAnswer
	// takes its answer; an offer that gets none changes nothing.
	Reoffer(ctx context.Context, restart bool) ([]byte, error)
	// SetWish rules offers and answers from now on; what it forbids to send stops at once.
	SetWish(Wish)
	Close() error // idempotent; returns after camera and microphone are freed
}

// MediaState is what was agreed for one kind of media.
type MediaState struct {
	Kind      string             `json:"kind"` // "audio" or "video"
	Codec     string             `json:"codec"`
	Direction profiles.Direction `json:"direction"` // seen from this side
	// Codecs are all that were agreed, in order of preference: each side sends the first that
	// its source makes (RFC 3264 section 7).
	Codecs []profiles.Codec `json:"-"`
}

// LegStats are counters of one leg since its start.
type LegStats struct {
	Audio     StreamStats   `json:"audio"`
	Video     StreamStats   `json:"video"`
	RTT       time.Duration `json:"rtt_ns"`               // of the path, by ICE's checks
	NoPicture bool          `json:"no_picture,omitempty"` // the sink waits for a key frame
	Local     string        `json:"local,omitempty"`      // chosen candidate
	Remote    string        `json:"remote,omitempty"`     // chosen candidate
	Recording string        `json:"recording,omitempty"`
	// What is wrong with source and sink of this side, in sentences; empty when they work.
	Source, Sink string `json:"-"`
}

// StreamStats are the counters of one kind of media, in both directions. While a direction
// is on hold or muted, nothing of it is counted.
type StreamStats struct {
	PacketsSent     uint64      `json:"packets_sent"`
	BytesSent       uint64      `json:"bytes_sent"`
	Skipped         uint64      `json:"skipped"`          // packets not sent, because this viewer was too slow for its source
	PacketsReceived uint64      `json:"packets_received"` // without copies
	BytesReceived   uint64      `json:"bytes_received"`   // payload
	Lost            int64       `json:"lost"`             // sent, and not here (RFC 3550 section 6.4.1)
	Late            uint64      `json:"late"`             // came behind a later one: reordered on the way, or sent again when it was missed
	Duplicates      uint64      `json:"duplicates"`       // came twice, beyond what SRTP drops unseen (RFC 3711 section 3.3.2)
	JitterMs        float64     `json:"jitter_ms"`        // RFC 3550 appendix A.8
	Peer            RemoteStats `json:"peer"`             // what the other side reports of what we send
}

// RemoteStats are the last receiver report of the other side (RFC 3550 section 6.4.2). Lost
// also counts what was sent again and came after the report.
type RemoteStats struct {
	Reports         uint64        `json:"reports"` // how many came; 0: the rest is unknown
	HighestSequence uint32        `json:"highest_sequence"`
	Lost            int64         `json:"lost"`
	FractionLost    float64       `json:"fraction_lost"` // since the report before
	JitterMs        float64       `json:"jitter_ms"`
	RTT             time.Duration `json:"rtt_ns"`
}
