package sessions

import (
	"context"
	"errors"
	"log/slog"
	"time"

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
	Capabilities profiles.Capabilities
	Logger       *slog.Logger
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
	Connected() <-chan struct{} // closed once packets pass and both keys are proved
	Done() <-chan struct{}      // closed when the leg failed by itself
	Err() error
	// Broken holds a signal when the path was lost but may be found again by an offer that
	// Restart makes. SetAnswer takes its answer.
	Broken() <-chan struct{}
	Restart(ctx context.Context) ([]byte, error)
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
	RTT       time.Duration `json:"rtt_ns"`
	Local     string        `json:"local,omitempty"`  // chosen candidate
	Remote    string        `json:"remote,omitempty"` // chosen candidate
	Recording string        `json:"recording,omitempty"`
}

// StreamStats are the counters of one kind of media, in both directions.
type StreamStats struct {
	PacketsSent     uint64  `json:"packets_sent"`
	BytesSent       uint64  `json:"bytes_sent"`
	PacketsReceived uint64  `json:"packets_received"`
	BytesReceived   uint64  `json:"bytes_received"`
	Lost            int64   `json:"lost"`
	JitterMs        float64 `json:"jitter_ms"`
}
