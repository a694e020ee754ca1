package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/at-wat/ebml-go"
	"github.com/at-wat/ebml-go/webm"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

// maxClip bounds the memory that a clip takes.
const maxClip = 64 << 20

// frame of a clip, ready to be cut into packets.
type frame struct {
	kind string
	at   time.Duration
	key  bool
	data []byte
}

// clipFile is a parsed Matroska or WebM file.
type clipFile struct {
	tracks []sessions.Track
	frames []frame // by time
	length time.Duration
}

// loadClip reads a clip made for looping: H.264 or VP8, and Opus.
func loadClip(path string) (*clipFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the clip %s: %w; `make clips` makes some", path, err)
	}
	if info.Size() > maxClip {
		return nil, fmt.Errorf("the clip %s is larger than 64 MiB; use a shorter one", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := parseClip(data)
	if err != nil {
		return nil, fmt.Errorf("the clip %s cannot be played: %w", path, err)
	}
	return c, nil
}

// tracksRead is how much of a clip is read to learn its codecs: they stand at the beginning.
const tracksRead = 64 << 10

// clipTracks says what a clip holds, without reading all of it.
func clipTracks(path string) ([]sessions.Track, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the clip %s: %w; `make clips` makes some", path, err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, tracksRead))
	if err != nil {
		return nil, err
	}
	c, err := parseTracks(data)
	if err != nil {
		return nil, fmt.Errorf("the clip %s cannot be played: %w", path, err)
	}
	return c.tracks, nil
}

func parseTracks(data []byte) (c *clipFile, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	var f struct {
		Header  webm.EBMLHeader `ebml:"EBML"`
		Segment struct {
			Tracks webm.Tracks `ebml:"Tracks"`
		} `ebml:"Segment"`
	}
	if err := ebml.Unmarshal(bytes.NewReader(data), &f, ebml.WithIgnoreUnknown(true)); err != nil && len(f.Segment.Tracks.TrackEntry) == 0 {
		return nil, fmt.Errorf("it is no Matroska file: %w", err)
	}
	c = &clipFile{}
	for _, t := range f.Segment.Tracks.TrackEntry {
		if err := c.addTrack(t, map[uint64]func(time.Duration, bool, []byte){}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func parseClip(data []byte) (c *clipFile, err error) {
	defer func() { // the parser indexes into what the file says
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	var f struct {
		Header  webm.EBMLHeader `ebml:"EBML"`
		Segment webm.Segment    `ebml:"Segment"`
	}
	if err := ebml.Unmarshal(bytes.NewReader(data), &f, ebml.WithIgnoreUnknown(true)); err != nil {
		return nil, fmt.Errorf("it is no Matroska file: %w", err)
	}
	c = &clipFile{}
	scale := time.Duration(f.Segment.Info.TimecodeScale)
	if scale <= 0 {
		scale = time.Millisecond
	}
	byNumber := map[uint64]func(at time.Duration, key bool, b []byte){}
	for _, t := range f.Segment.Tracks.TrackEntry {
		if err := c.addTrack(t, byNumber); err != nil {
			return nil, err
		}
	}
	for _, cl := range f.Segment.Cluster {
		blocks := cl.SimpleBlock
		for _, g := range cl.BlockGroup {
			g.Block.Keyframe = g.ReferenceBlock == 0
			blocks = append(blocks, g.Block)
		}
		for _, b := range blocks {
			if add := byNumber[b.TrackNumber]; add != nil {
				at := time.Duration(int64(cl.Timecode)+int64(b.Timecode)) * scale
				for _, d := range b.Data {
					add(at, b.Keyframe, d)
				}
			}
		}
	}
	return c, c.finish()
}

func (c *clipFile) addTrack(t webm.TrackEntry, byNumber map[uint64]func(time.Duration, bool, []byte)) error {
	add := func(kind string, convert func(bool, []byte) []byte) {
		byNumber[t.TrackNumber] = func(at time.Duration, key bool, b []byte) {
			if d := convert(key, b); len(d) > 0 {
				c.frames = append(c.frames, frame{kind, at, key, d})
			}
		}
	}
	plain := func(_ bool, b []byte) []byte { return b }
	switch t.CodecID {
	case "V_MPEG4/ISO/AVC":
		sets, err := parameterSets(t.CodecPrivate)
		if err != nil {
			return err
		}
		c.tracks = append(c.tracks, sessions.Track{Kind: "video", Codec: profiles.Codec{Name: "H264", ClockRate: 90000, Fmtp: "packetization-mode=1"}})
		add("video", func(key bool, b []byte) []byte { return annexB(sets, key, b) })
	case "V_MPEGH/ISO/HEVC":
		sets, err := parameterSets265(t.CodecPrivate)
		if err != nil {
			return err
		}
		c.tracks = append(c.tracks, sessions.Track{Kind: "video", Codec: profiles.Codec{Name: "H265", ClockRate: 90000}})
		add("video", func(key bool, b []byte) []byte { return annexB(sets, key, b) })
	case "V_VP8":
		c.tracks = append(c.tracks, sessions.Track{Kind: "video", Codec: profiles.Codec{Name: "VP8", ClockRate: 90000}})
		add("video", plain)
	case "A_MS/ACM":
		codec, err := waveCodec(t.CodecPrivate)
		if err != nil {
			return err
		}
		c.tracks = append(c.tracks, sessions.Track{Kind: "audio", Codec: codec})
		byNumber[t.TrackNumber] = c.reblock()
	case "A_OPUS":
		c.tracks = append(c.tracks, sessions.Track{Kind: "audio", Codec: profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}})
		add("audio", plain)
	default:
		return fmt.Errorf("its codec %s is none of H.264, H.265, VP8, Opus, G.711 and G.722; convert it with ffmpeg", t.CodecID)
	}
	return nil
}

const (
	// plainFrame is 20 ms of G.711 or G.722, which both have 8,000 bytes a second.
	plainFrame, plainTime = 160, 20 * time.Millisecond
	// maxPlainGap is how far a block's time may be from where its bytes belong.
	maxPlainGap = 100 * time.Millisecond
)

// reblock cuts what a file keeps in blocks of any size into packets of 20 ms. The bytes
// say what time it is; a gap in the file's own times starts anew.
func (c *clipFile) reblock() func(at time.Duration, key bool, b []byte) {
	var rest []byte
	var next time.Duration // of rest's first byte
	return func(at time.Duration, _ bool, b []byte) {
		expected := next + time.Duration(len(rest))*time.Second/8000
		if len(rest) == 0 || (at-expected).Abs() > maxPlainGap {
			rest, next = nil, at
		}
		for rest = append(rest, b...); len(rest) >= plainFrame; rest = rest[plainFrame:] {
			c.frames = append(c.frames, frame{"audio", next, true, rest[:plainFrame:plainFrame]})
			next += plainTime
		}
	}
}

// waveCodec reads WAVEFORMATEX for the codecs that need no frames.
func waveCodec(b []byte) (profiles.Codec, error) {
	if len(b) >= 4 && binary.LittleEndian.Uint16(b[2:]) == 1 {
		for name, tag := range map[string]uint16{"PCMA": 6, "PCMU": 7, "G722": 0x028f} {
			if binary.LittleEndian.Uint16(b) == tag {
				return profiles.Codec{Name: name, ClockRate: 8000, Channels: 1}, nil
			}
		}
	}
	return profiles.Codec{}, errors.New("its sound is neither Opus nor mono G.711 or G.722; convert it with ffmpeg")
}

func (c *clipFile) finish() error {
	if len(c.frames) == 0 {
		return errors.New("it holds no frames")
	}
	slices.SortStableFunc(c.frames, func(a, b frame) int { return int(a.at - b.at) })
	first := c.frames[0].at
	last := map[string][2]time.Duration{} // the last two times of each kind
	for i := range c.frames {
		f := &c.frames[i]
		f.at -= first
		last[f.kind] = [2]time.Duration{last[f.kind][1], f.at}
	}
	for _, l := range last {
		c.length = max(c.length, l[1]+(l[1]-l[0]))
	}
	if c.length <= 0 {
		return errors.New("it is too short")
	}
	return nil
}

// parameterSets takes SPS and PPS out of an avcC box (ISO/IEC 14496-15 section 5.3.3.1),
// in Annex B form.
func parameterSets(b []byte) ([]byte, error) {
	bad := errors.New("its H.264 description is damaged")
	if len(b) < 7 || b[4]&3 != 3 {
		return nil, bad
	}
	var out []byte
	rest := b[5:]
	for _, mask := range []byte{0x1f, 0xff} {
		if len(rest) < 1 {
			return nil, bad
		}
		n := int(rest[0] & mask)
		rest = rest[1:]
		for range n {
			var ok bool
			if out, rest, ok = takeSet(out, rest); !ok {
				return nil, bad
			}
		}
	}
	return out, nil
}

// takeSet moves one set, which has its length in front, behind a start code.
func takeSet(out, rest []byte) (sets, left []byte, ok bool) {
	if len(rest) < 2 {
		return nil, nil, false
	}
	l := int(binary.BigEndian.Uint16(rest))
	if len(rest) < 2+l {
		return nil, nil, false
	}
	return append(append(out, 0, 0, 0, 1), rest[2:2+l]...), rest[2+l:], true
}

// parameterSets265 takes VPS, SPS and PPS out of an hvcC box (ISO/IEC 14496-15 section
// 8.3.3.1), in Annex B form.
func parameterSets265(b []byte) ([]byte, error) {
	bad := errors.New("its H.265 description is damaged")
	if len(b) < 23 || b[21]&3 != 3 {
		return nil, bad
	}
	var out []byte
	rest := b[23:]
	for range b[22] {
		if len(rest) < 3 {
			return nil, bad
		}
		n := int(binary.BigEndian.Uint16(rest[1:]))
		rest = rest[3:]
		for range n {
			var ok bool
			if out, rest, ok = takeSet(out, rest); !ok {
				return nil, bad
			}
		}
	}
	return out, nil
}

// annexB turns length-prefixed NAL units into start codes, with the parameter sets
// before a key frame.
func annexB(sets []byte, key bool, b []byte) []byte {
	var out []byte
	if key {
		out = append(out, sets...)
	}
	for len(b) >= 4 {
		l := int(binary.BigEndian.Uint32(b))
		if l < 1 || l > len(b)-4 {
			return nil
		}
		out = append(append(out, 0, 0, 0, 1), b[4:4+l]...)
		b = b[4+l:]
	}
	return out
}
