package media

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// SourceSpec says where a device's media comes from; the zero value sends nothing.
type SourceSpec struct {
	Clip     string             // Matroska file, looped
	Pipeline *profiles.Pipeline // supervised program
	Live     Live               // made elsewhere, such as an RTSP camera
	Encoders *Encoders          // for pipelines; nil: those that ship
}

// Live is a source that another package makes. Open returns at once; what it starts ends
// with ctx and is counted in wg.
type Live interface {
	Open(ctx context.Context, wg *sync.WaitGroup, log *slog.Logger) sessions.Source
}

// SinkSpec says where a device's media goes to; the zero value drops it.
type SinkSpec struct {
	Record   string             // folder for one Matroska file a call
	Pipeline *profiles.Pipeline // supervised program
}

// Box is a device's source and sink.
type Box struct {
	source SourceSpec
	sink   SinkSpec
	volume *volume
	log    *slog.Logger

	mu     sync.Mutex
	users  int
	open   func(context.Context, []sessions.MediaState) (sessions.Source, error)
	cancel context.CancelFunc
	wg     *sync.WaitGroup
}

// NewBox makes a box; it opens nothing.
func NewBox(source SourceSpec, sink SinkSpec, log *slog.Logger) *Box {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Box{source: source, sink: sink, volume: newVolume(), log: log}
}

// OpenSource opens the source for its first user and shares it with later ones, as far as
// the media that each agreed on allow. The source is nil if the device sends nothing.
// release frees it with the last user and returns after camera and microphone are free.
func (b *Box) OpenSource(ctx context.Context, media []sessions.MediaState) (src sessions.Source, release func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users == 0 {
		if err := b.begin(); err != nil || b.open == nil {
			return nil, func() {}, err
		}
	}
	b.users++
	if src, err = b.open(ctx, media); err != nil || src == nil {
		b.leave()
		return nil, func() {}, err
	}
	var once sync.Once
	return src, func() {
		once.Do(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.leave()
		})
	}, nil
}

// InUse reports whether somebody has the source open.
func (b *Box) InUse() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.users > 0
}

// begin prepares the source; open stays nil if there is none. mu is held.
func (b *Box) begin() error {
	ctx, cancel := context.WithCancel(context.Background())
	wg := &sync.WaitGroup{}
	var err error
	switch {
	case b.source.Clip != "":
		var c *clip
		c, err = openClip(ctx, b.source.Clip, wg)
		b.open = func(context.Context, []sessions.MediaState) (sessions.Source, error) { return c, nil }
	case b.source.Pipeline != nil:
		err = b.beginProgram(ctx, wg)
	case b.source.Live != nil:
		c := b.source.Live.Open(ctx, wg, b.log)
		b.open = func(context.Context, []sessions.MediaState) (sessions.Source, error) { return c, nil }
	default:
		cancel()
		return nil
	}
	if err != nil {
		cancel()
		wg.Wait()
		b.open = nil
		return err
	}
	b.cancel, b.wg = cancel, wg
	return nil
}

func (b *Box) beginProgram(ctx context.Context, wg *sync.WaitGroup) error {
	if b.source.Encoders == nil {
		e, err := NewEncoders(nil, "")
		if err != nil {
			return err
		}
		b.source.Encoders = e
	}
	p, err := openProgram(ctx, *b.source.Pipeline, b.source.Encoders, wg, b.log)
	if err == nil {
		b.open = p.view
	}
	return err
}

// leave ends one use; mu is held.
func (b *Box) leave() {
	if b.users--; b.users == 0 {
		b.cancel()
		b.wg.Wait()
		b.open = nil
	}
}

// Makes narrows what a device says about itself to what its source can make, as far as is
// known without opening or running anything.
func (b *Box) Makes(c profiles.Capabilities) (profiles.Capabilities, error) {
	makes := map[string][]string{}
	switch {
	case b.source.Clip != "":
		tracks, err := clipTracks(b.source.Clip)
		if err != nil {
			return c, err
		}
		for _, t := range tracks {
			makes[t.Kind] = []string{t.Codec.Name}
		}
	case b.source.Pipeline != nil:
		for _, kind := range profiles.Kinds() {
			if s := b.source.Pipeline.Of(kind); s != nil {
				makes[kind] = s.Codecs
				if b.source.Encoders != nil && slices.Contains(s.Output, "{{.Encoder}}") {
					makes[kind] = b.source.Encoders.Makes(b.source.Pipeline.Command[0], s.Codecs)
				}
			}
		}
	default:
		return c, nil
	}
	for kind, m := range map[string]*profiles.Medium{"audio": &c.Audio, "video": &c.Video} {
		if m.Makes = makes[kind]; len(m.Makes) == 0 {
			m.Direction = profiles.Join(false, m.Direction.Receives())
		}
	}
	return c, nil
}

// OpenSink opens a sink for one call.
func (b *Box) OpenSink(_ context.Context, call, remote string, media []sessions.MediaState) (sessions.Sink, error) {
	switch {
	case b.sink.Record != "":
		if err := os.MkdirAll(b.sink.Record, 0o700); err != nil {
			return nil, errors.Join(errors.New("cannot make the folder for recordings; choose another with sink.record"), err)
		}
		name := strings.Map(safe, call[:min(8, len(call))]+"-from-"+remote) + ".mkv"
		return newRecorder(filepath.Join(b.sink.Record, name), media, b.log)
	case b.sink.Pipeline != nil:
		return openPipelineSink(*b.sink.Pipeline, media, b.volume, b.log)
	}
	return nothing{}, nil
}

// safe keeps file names to letters that no file system minds.
func safe(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
		return r
	}
	return '_'
}
