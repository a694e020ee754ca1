package sessions

import (
	"context"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
)

// Track is one medium of a source.
type Track struct {
	Kind  string // "audio" or "video"
	Codec profiles.Codec
}

// Source is where media comes from: a clip, a camera, a pipeline. Safe for concurrent use.
type Source interface {
	Tracks() []Track
	// Subscribe starts delivery to one more viewer, beginning with the current group of
	// pictures. Viewers are independent: one that is slow loses packets rather than delaying
	// the others. The caller cancels it. The position is the subscription's until Cancel has
	// returned.
	Subscribe(Outlet, *Position) Subscription
	Done() <-chan struct{} // closed when it failed by itself
	Err() error
}

// Position is how far the streams of one leg have come. A later subscription, to this source
// or another, goes on from there: an SSRC has one numbering and one time (RFC 3550 section
// 5.1), and a number that came twice would break SRTP. The zero value is a leg that sent
// nothing yet.
type Position struct{ Audio, Video Stream }

// Stream is how far one stream has come. Only sources look inside.
type Stream struct {
	Number uint64    // last sequence number, in its low 16 bits; 0: nothing was sent
	Stamp  uint32    // newest time stamp
	Shift  uint32    // added to the source's time stamps
	At     time.Time // of the last packet
	Partly bool      // its frame was not sent to the end
	Clock  uint32    // Hz
}

// Outlet takes what a source delivers to one viewer. It is called from one goroutine.
type Outlet interface {
	// Takes says whether media of a kind may leave now. What comes while it may not is left
	// out of the numbering; the picture begins anew with a key frame afterwards.
	Takes(kind string) bool
	// WriteRTP takes packets. Sequence numbers are the
	// viewer's own, SSRC and payload type are the outlet's to set. The slice is valid during
	// the call, payloads are shared and read-only.
	WriteRTP(Batch)
}

// Batch is a few packets of one kind: of one frame of the picture, or a few to send again.
type Batch struct {
	Kind    string
	Packets []rtp.Packet
	Live    bool // as fresh as the source has them
	// At is when the last packet would have come, had sound and picture been on their way
	// equally long: what sender reports are made of.
	At    time.Time
	Again bool // answers a NACK
}

// Subscription is one viewer's hold on a source. Safe for concurrent use.
type Subscription interface {
	// RequestKeyFrame answers a PLI or FIR (RFC 4585 section 6.3.1, RFC 5104 section 4.3.1)
	// with the current group of pictures again, at a bounded rate.
	RequestKeyFrame()
	// Resend answers a generic NACK (RFC 4585 section 6.2.1) for the picture: the packets go
	// out as they did the first time, as far as the source still has them.
	Resend(lost []uint16)
	// Skipped counts the packets that this viewer was too slow for.
	Skipped() uint64
	// Cancel ends delivery and returns after the last call of the outlet.
	Cancel()
}

// Sink is where media goes to. Calls for one kind come from one goroutine.
type Sink interface {
	WriteRTP(kind string, codec profiles.Codec, p *rtp.Packet)
	WriteSenderReport(kind string, sr *rtcp.SenderReport) // ties the two clocks together
	NeedsKeyFrame() bool
	Path() string // of the file it writes, if any
	Close() error
}

// Fallible is a Source or Sink that can say what is wrong with it now, in a sentence with
// what to do; empty when it works. Safe for concurrent use.
type Fallible interface{ Trouble() string }

// Endpoint opens a device's source and sink with their first user and closes them with
// the last one.
type Endpoint interface {
	// OpenSource opens what the agreed media need and no more: without a picture to send, no
	// camera. A nil source sends nothing.
	OpenSource(ctx context.Context, media []MediaState) (Source, func(), error)
	OpenSink(ctx context.Context, call, remote string, media []MediaState) (Sink, error)
}
