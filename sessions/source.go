package sessions

import (
	"context"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/profiles"
)

// Track is one medium of a source.
type Track struct {
	Kind  string // "audio" or "video"
	Codec profiles.Codec
}

// Source is where media comes from: a clip, a camera, a pipeline. Subscribe may be
// called for several legs; a slow one loses packets rather than delaying the others.
type Source interface {
	Tracks() []Track
	// Subscribe delivers packets until cancel is called; the packet belongs to the
	// receiver, payload shared and read-only.
	Subscribe(deliver func(kind string, p *rtp.Packet)) (cancel func())
	RequestKeyFrame()
	Done() <-chan struct{} // closed when it failed by itself
	Err() error
}

// Sink is where media goes to. Calls for one kind come from one goroutine.
type Sink interface {
	WriteRTP(kind string, codec profiles.Codec, p *rtp.Packet)
	WriteSenderReport(kind string, sr *rtcp.SenderReport) // ties the two clocks together
	NeedsKeyFrame() bool
	Path() string // of the file it writes, if any
	Close() error
}

// Endpoint opens a device's source and sink with their first user and closes them with
// the last one.
type Endpoint interface {
	// OpenSource opens what the agreed media need and no more: without a picture to send, no
	// camera. A nil source sends nothing.
	OpenSource(ctx context.Context, media []MediaState) (Source, func(), error)
	OpenSink(ctx context.Context, call, remote string, media []MediaState) (Sink, error)
}
