package media

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// SourceSpec says where a device's media comes from; the zero value sends nothing.
type SourceSpec struct {
	Clip     string             // Matroska file, looped
	Pipeline *profiles.Pipeline // supervised program
	Camera   *Camera            // RTSP
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
	log    *slog.Logger

	mu     sync.Mutex
	users  int
	open   sessions.Source
	cancel context.CancelFunc
	wg     *sync.WaitGroup
}

// NewBox makes a box; it opens nothing.
func NewBox(source SourceSpec, sink SinkSpec, log *slog.Logger) *Box {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Box{source: source, sink: sink, log: log}
}

// OpenSource opens the source for its first user and shares it with later ones. The
// source is nil if the device sends nothing. release frees it with the last user and
// returns after camera and microphone are free.
func (b *Box) OpenSource(_ context.Context) (src sessions.Source, release func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users == 0 {
		ctx, cancel := context.WithCancel(context.Background())
		wg := &sync.WaitGroup{}
		switch {
		case b.source.Clip != "":
			src, err = openClip(ctx, b.source.Clip, wg)
		case b.source.Pipeline != nil:
			src, err = openPipelineSource(ctx, *b.source.Pipeline, wg, b.log)
		case b.source.Camera != nil:
			src = openCamera(ctx, b.source.Camera, defaultTiming(), wg, b.log)
		default:
			cancel()
			return nil, func() {}, nil
		}
		if err != nil {
			cancel()
			wg.Wait()
			return nil, nil, err
		}
		b.open, b.cancel, b.wg = src, cancel, wg
	}
	b.users++
	var once sync.Once
	return b.open, func() { once.Do(b.release) }, nil
}

// InUse reports whether somebody has the source open.
func (b *Box) InUse() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.users > 0
}

func (b *Box) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users == 0 {
		b.cancel()
		b.wg.Wait()
		b.open = nil
	}
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
		return openPipelineSink(*b.sink.Pipeline, media, b.log)
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
