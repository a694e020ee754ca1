package media

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/at-wat/ebml-go/mkvcore"
	"github.com/at-wat/ebml-go/webm"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4/pkg/media/samplebuilder"

	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// reorder is how many packets late one may come and still find its place.
	reorder = 256
	// holdFor is how long frames wait for the first sender reports, which say how the
	// clocks of sound and picture belong together; senders report at least each second.
	holdFor = 3 * time.Second
)

// recorder writes what one call receives to a Matroska file. It starts with a key frame
// and puts sound and picture on one time line by their sender reports (RFC 3550 6.4.1).
type recorder struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	tracks  map[string]*recTrack
	began   time.Time // first packet
	held    []sample
	out     map[string]webm.BlockWriteCloser
	zero    time.Duration // of the time line
	lastKey time.Time
	broken  bool
	closed  bool
}

type recTrack struct {
	kind  string
	codec profiles.Codec
	sb    *samplebuilder.SampleBuilder

	seen    bool
	base    uint32 // first RTP time stamp, for unwrapping
	last    uint32
	cycles  int64
	arrival time.Time // of the first packet
	synced  bool
	offset  time.Duration // sender's clock at base
	private []byte        // CodecPrivate
	keyed   bool          // a key frame came
	width   uint64
	height  uint64
}

type sample struct {
	kind string
	at   time.Duration // since base
	key  bool
	data []byte
}

func newRecorder(path string, media []sessions.MediaState, log *slog.Logger) (*recorder, error) {
	r := &recorder{path: path, log: log, tracks: map[string]*recTrack{}}
	for _, m := range media {
		if m.Direction.Receives() {
			r.tracks[m.Kind] = &recTrack{kind: m.Kind}
		}
	}
	f, err := os.Create(path) // now, so that a full or read-only disk is said at once
	if err != nil {
		return nil, fmt.Errorf("cannot record to %s: %w", path, err)
	}
	return r, f.Close()
}

// Path implements sessions.Sink.
func (r *recorder) Path() string { return r.path }

// NeedsKeyFrame asks until the picture has begun.
func (r *recorder) NeedsKeyFrame() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.tracks["video"]
	return v != nil && !v.keyed
}

// WriteRTP implements sessions.Sink.
func (r *recorder) WriteRTP(kind string, codec profiles.Codec, p *rtp.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tracks[kind]
	if t == nil || r.closed || r.broken {
		return
	}
	now := time.Now()
	if r.began.IsZero() {
		r.began = now
	}
	if !t.seen {
		t.seen, t.base, t.last, t.arrival, t.codec = true, p.Timestamp, p.Timestamp, now, codec
		t.sb = samplebuilder.New(reorder, depacketizer(codec), codec.ClockRate)
	}
	t.sb.Push(p)
	r.drain(t)
	r.flush(now)
}

func (r *recorder) drain(t *recTrack) {
	for s := t.sb.Pop(); s != nil; s = t.sb.Pop() {
		data, key := t.inspect(s.Data)
		if t.kind == "video" && key {
			t.keyed = true
		}
		if len(data) == 0 || t.kind == "video" && !t.keyed {
			continue
		}
		r.held = append(r.held, sample{t.kind, t.elapsed(s.PacketTimestamp), key, data})
	}
}

// elapsed unwraps a time stamp and turns it into time since base.
func (t *recTrack) elapsed(stamp uint32) time.Duration {
	diff := int64(int32(stamp - t.last)) //nolint:gosec // modular arithmetic of RTP time stamps
	t.cycles += diff
	t.last = stamp
	return time.Duration(t.cycles * int64(time.Second) / int64(t.codec.ClockRate))
}

// WriteSenderReport ties the track's time stamps to the sender's clock; the first
// report of a track counts.
func (r *recorder) WriteSenderReport(kind string, sr *rtcp.SenderReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tracks[kind]
	if t == nil || !t.seen || t.synced || sr.NTPTime == 0 {
		return
	}
	ntp := time.Duration(sr.NTPTime>>32)*time.Second + time.Duration((sr.NTPTime&0xffffffff)*uint64(time.Second)>>32)
	since := time.Duration(int64(int32(sr.RTPTime-t.base)) * int64(time.Second) / int64(t.codec.ClockRate)) //nolint:gosec // modular
	t.offset, t.synced = ntp-since, true
	r.flush(time.Now())
}

// flush opens the file once everything needed is known, and writes what is ready.
func (r *recorder) flush(now time.Time) {
	if r.out == nil {
		if r.began.IsZero() || !r.ready(now) {
			return
		}
		if err := r.open(); err != nil {
			r.broken = true
			r.log.Error("the recording ended", "path", r.path, "err", err)
			return
		}
	}
	for _, s := range r.held {
		at := r.tracks[s.kind].offset + s.at - r.zero
		if at < 0 {
			continue
		}
		if _, err := r.out[s.kind].Write(s.key, at.Milliseconds(), s.data); err != nil {
			r.broken = true
			r.log.Error("the recording ended", "path", r.path, "err", err)
			return
		}
	}
	r.held = r.held[:0]
}

func (r *recorder) ready(now time.Time) bool {
	late := now.Sub(r.began) > holdFor
	for _, t := range r.tracks {
		if !t.seen && !late || t.seen && (!t.synced && !late || t.kind == "video" && !t.keyed) {
			return false
		}
	}
	return len(r.held) > 0
}

func (r *recorder) open() error {
	allSynced := true
	for _, t := range r.tracks {
		allSynced = allSynced && (!t.seen || t.synced)
	}
	var entries []webm.TrackEntry
	var kinds []string
	for _, kind := range []string{"video", "audio"} {
		t := r.tracks[kind]
		if t == nil || !t.seen {
			delete(r.tracks, kind)
			continue
		}
		if !allSynced { // no reports: what came together belongs together
			t.offset = time.Duration(t.arrival.Sub(r.began))
		}
		entries, kinds = append(entries, t.entry(uint64(len(kinds)+1))), append(kinds, kind)
	}
	r.held = slices.DeleteFunc(r.held, func(s sample) bool { return r.tracks[s.kind] == nil })
	slices.SortStableFunc(r.held, func(a, b sample) int {
		return int(r.tracks[a.kind].offset + a.at - r.tracks[b.kind].offset - b.at)
	})
	r.zero = r.tracks[r.held[0].kind].offset + r.held[0].at
	f, err := os.Create(r.path)
	if err != nil {
		return err
	}
	sorter, err := mkvcore.NewMultiTrackBlockSorter(mkvcore.WithMaxDelayedPackets(256), mkvcore.WithSortRule(mkvcore.BlockSorterWriteOutdated))
	if err != nil {
		_ = f.Close()
		return err
	}
	header := webm.EBMLHeader{EBMLVersion: 1, EBMLReadVersion: 1, EBMLMaxIDLength: 4, EBMLMaxSizeLength: 8, DocType: "matroska", DocTypeVersion: 4, DocTypeReadVersion: 2}
	ws, err := webm.NewSimpleBlockWriter(f, entries,
		mkvcore.WithEBMLHeader(header), mkvcore.WithSegmentInfo(&webm.Info{TimecodeScale: 1_000_000, MuxingApp: "hallway", WritingApp: "hallway"}),
		mkvcore.WithBlockInterceptor(sorter), mkvcore.WithMaxKeyframeInterval(1, 900),
		mkvcore.WithOnErrorHandler(func(err error) { r.log.Warn("recording", "path", r.path, "err", err) }),
		mkvcore.WithOnFatalHandler(func(err error) { r.log.Error("recording", "path", r.path, "err", err) }))
	if err != nil {
		_ = f.Close()
		return err
	}
	r.out = map[string]webm.BlockWriteCloser{}
	for i, kind := range kinds {
		r.out[kind] = ws[i]
	}
	return nil
}

// Close writes what is held and ends the file.
func (r *recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	for _, t := range r.tracks {
		if t.seen {
			t.sb.Flush()
			r.drain(t)
		}
	}
	if !r.began.IsZero() && !r.broken {
		for kind, t := range r.tracks {
			if !t.seen || t.kind == "video" && !t.keyed {
				delete(r.tracks, kind) // it never came: the file has the other one alone
			}
		}
		r.held = slices.DeleteFunc(r.held, func(s sample) bool { return r.tracks[s.kind] == nil })
		r.flush(r.began.Add(time.Hour))
	}
	var err error
	for _, w := range r.out {
		if e := w.Close(); e != nil {
			err = e
		}
	}
	return err
}

func depacketizer(c profiles.Codec) rtp.Depacketizer {
	switch strings.ToUpper(c.Name) {
	case "H264":
		return &codecs.H264Packet{IsAVC: true}
	case "VP8":
		return &codecs.VP8Packet{}
	case "OPUS":
		return &codecs.OpusPacket{}
	}
	return &plainPacket{}
}

// plainPacket is the payload format of G.711 and G.722: the samples as they are.
type plainPacket struct{}

// Unmarshal implements rtp.Depacketizer.
func (*plainPacket) Unmarshal(b []byte) ([]byte, error) { return b, nil }

// IsPartitionHead implements rtp.Depacketizer.
func (*plainPacket) IsPartitionHead([]byte) bool { return true }

// IsPartitionTail implements rtp.Depacketizer.
func (*plainPacket) IsPartitionTail(bool, []byte) bool { return true }

// inspect finds key frames and what a player must know beforehand.
func (t *recTrack) inspect(b []byte) (data []byte, key bool) {
	if t.kind != "video" {
		return b, true
	}
	if strings.EqualFold(t.codec.Name, "VP8") {
		if len(b) < 10 || b[0]&1 != 0 {
			return b, false
		}
		if t.width == 0 {
			t.width, t.height = uint64(binary.LittleEndian.Uint16(b[6:])&0x3fff), uint64(binary.LittleEndian.Uint16(b[8:])&0x3fff)
		}
		return b, true
	}
	var sps, pps []byte
	for rest := b; len(rest) >= 5; {
		l := int(binary.BigEndian.Uint32(rest))
		if l < 1 || l > len(rest)-4 {
			return nil, false
		}
		switch nal := rest[4 : 4+l]; nal[0] & 0x1f {
		case 5:
			key = true
		case 7:
			sps = nal
		case 8:
			pps = nal
		}
		rest = rest[4+l:]
	}
	if t.private == nil && len(sps) >= 4 && pps != nil {
		t.private = avcC(sps, pps)
		var parsed h264.SPS
		if err := parsed.Unmarshal(sps); err == nil {
			t.width, t.height = uint64(parsed.Width()), uint64(parsed.Height()) //nolint:gosec // a picture has no negative size
		}
	}
	return b, key && t.private != nil
}

// avcC is ISO/IEC 14496-15 section 5.3.3.1.
func avcC(sps, pps []byte) []byte {
	b := []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
}

func (t *recTrack) entry(number uint64) webm.TrackEntry {
	e := webm.TrackEntry{TrackNumber: number, TrackUID: number, CodecPrivate: t.private}
	if t.kind == "video" {
		e.TrackType, e.Video = 1, &webm.Video{PixelWidth: t.width, PixelHeight: t.height}
		e.CodecID = "V_MPEG4/ISO/AVC"
		if strings.EqualFold(t.codec.Name, "VP8") {
			e.CodecID = "V_VP8"
		}
		return e
	}
	e.TrackType = 2
	channels := max(1, uint64(t.codec.Channels))
	e.Audio = &webm.Audio{SamplingFrequency: float64(t.codec.ClockRate), Channels: channels}
	switch strings.ToUpper(t.codec.Name) {
	case "OPUS":
		e.CodecID = "A_OPUS"
		e.CodecPrivate = []byte{'O', 'p', 'u', 's', 'H', 'e', 'a', 'd', 1, byte(channels), 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0} // RFC 7845 section 5.1
	case "PCMU":
		e.CodecID, e.CodecPrivate = "A_MS/ACM", waveFormat(7, 8000, 1)
	case "PCMA":
		e.CodecID, e.CodecPrivate = "A_MS/ACM", waveFormat(6, 8000, 1)
	case "G722":
		e.CodecID, e.CodecPrivate = "A_MS/ACM", waveFormat(0x028f, 16000, 1)
		e.Audio.SamplingFrequency = 16000 // the RTP clock of G.722 is half its sampling (RFC 3551 section 4.5.2)
	}
	return e
}

// waveFormat is WAVEFORMATEX, little endian.
func waveFormat(tag uint16, rate uint32, channels uint16) []byte {
	b := binary.LittleEndian.AppendUint16(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, 8000)
	b = binary.LittleEndian.AppendUint16(b, 1)
	b = binary.LittleEndian.AppendUint16(b, 8)
	return binary.LittleEndian.AppendUint16(b, 0)
}
