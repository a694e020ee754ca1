package media

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
)

const (
	// maxBatch bounds the packets of one batch: what one datagram train can carry.
	maxBatch = 48
	// pace is the pause between two frames of the past, and catchUp what all of them may
	// take: a receiver's socket is not flooded, and the viewer is live soon.
	pace, catchUp = 2 * time.Millisecond, 200 * time.Millisecond
	// tooLate is how far a viewer may fall behind before it is skipped to the next key
	// frame; tooLong is how long it may take for a group of pictures from the past.
	tooLate, tooLong = time.Second, 3 * time.Second
	// refreshEvery bounds how often a viewer can have the group of pictures. Receivers ask
	// before the first has arrived, and go on until they have a picture, so a request in vain
	// is repeated. It is shorter than the interval in which ours ask (300 ms), so that the first
	// request for what was really missed is not in vain.
	refreshEvery = 250 * time.Millisecond
	// maxLost bounds the repairs that wait, repairs those of one second.
	maxLost, repairs = 256, 1024
	// squeezed is how much of a frame's time, in ticks of 90 kHz, the past may take when it
	// is shown again: half a frame at 30 Hz.
	squeezed = 1500
	// videoClock of all formats of the picture, in Hz (RFC 6184, 7741, 7798).
	videoClock = 90_000
	// spans is how many stretches of a viewer's numbering can be repaired in.
	spans = 8
)

// viewer is one reader of a hub.
type viewer struct {
	hub   *Hub
	out   sessions.Outlet
	done  chan struct{}
	ended chan struct{}
	// notify holds one signal that there is something to do.
	notify  chan struct{}
	once    sync.Once
	skipped atomic.Uint64
	// position is where the streams were before; the goroutine keeps it up to date.
	position *sessions.Position

	// Of the goroutine alone.
	batch []rtp.Packet
	timer *time.Timer

	// The rest is under the hub's mu.
	audioPos uint64 // next packet of the sound
	audio    numbering
	audioCut bool // the sound begins anew
	audioSet bool // the shift of its time stamps is known

	pos      uint64 // next packet of the picture
	video    numbering
	spans    [spans]span // the newest first
	until    uint64      // what lies before is the past, which is paced
	pause    time.Duration
	joined   time.Time
	waiting  bool   // for a key frame at waitFrom or later
	slow     bool   // and that is because of its own slowness
	waitFrom uint64 // position
	partly   bool   // the last frame was not sent to its end
	sent     bool   // something was
	stamp    uint32 // newest time stamp
	videoSet bool   // the shift of time stamps is known

	lost      []uint16
	repaired  int
	repairsAt time.Time
	refresh   bool
}

func (v *viewer) signal() {
	select {
	case v.notify <- struct{}{}:
	default:
	}
}

// Cancel implements sessions.Subscription.
func (v *viewer) Cancel() {
	v.once.Do(func() {
		v.hub.mu.Lock()
		delete(v.hub.viewers, v)
		v.hub.mu.Unlock()
		close(v.done)
	})
	<-v.ended
}

// Skipped implements sessions.Subscription.
func (v *viewer) Skipped() uint64 { return v.skipped.Load() }

// RequestKeyFrame implements sessions.Subscription.
func (v *viewer) RequestKeyFrame() {
	now := time.Now()
	v.hub.mu.Lock()
	defer v.hub.mu.Unlock()
	if v.pos < v.until || now.Sub(v.joined) < refreshEvery { // it is on its way
		return
	}
	v.refresh = true
	v.signal()
}

// Resend implements sessions.Subscription.
func (v *viewer) Resend(lost []uint16) {
	v.hub.mu.Lock()
	defer v.hub.mu.Unlock()
	v.lost = append(v.lost, lost[:min(len(lost), maxLost-len(v.lost))]...)
	v.signal()
}

func (v *viewer) run() {
	defer close(v.ended)
	v.timer = time.NewTimer(0)
	defer v.timer.Stop()
	for {
		b, pause := v.next()
		if len(b.Packets) > 0 {
			v.out.WriteRTP(b)
			clear(b.Packets) // nothing of the source is held while there is nothing to send
		}
		switch {
		case pause > 0:
			v.timer.Reset(pause)
			select {
			case <-v.done:
				return
			case <-v.timer.C:
			}
		case len(b.Packets) > 0:
			select {
			case <-v.done:
				return
			default:
			}
		default:
			select {
			case <-v.done:
				return
			case <-v.notify:
			}
		}
	}
}

// next takes what is to be sent now, and says how long to wait before the next. Sound goes
// first, then repairs, then the picture.
func (v *viewer) next() (b sessions.Batch, pause time.Duration) {
	audio, video := v.out.Takes("audio"), v.out.Takes("video")
	h, now := v.hub, time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	v.batch = v.batch[:0]
	if v.sound(&h.audio, audio, now); len(v.batch) > 0 {
		return sessions.Batch{Kind: "audio", Packets: v.batch, Live: true, At: h.audio.at(v.audioPos - 1).at}, 0
	}
	if !video {
		v.await(0, false)
		v.lost = v.lost[:0]
		return b, 0
	}
	if v.repair(&h.video, now); len(v.batch) > 0 {
		return sessions.Batch{Kind: "video", Packets: v.batch, Again: true}, 0
	}
	live := v.picture(&h.video, now)
	if v.pos < v.until {
		pause = v.pause
	}
	b = sessions.Batch{Kind: "video", Packets: v.batch, Live: live}
	if len(v.batch) > 0 {
		b.At = h.video.at(v.pos - 1).at
	}
	return b, pause
}

// add puts a packet into the batch.
func (v *viewer) add(p *rtp.Packet, number uint64, stamp uint32) {
	v.batch = append(v.batch, *p)
	c := &v.batch[len(v.batch)-1]
	c.SequenceNumber, c.Timestamp = uint16(number), stamp //nolint:gosec // the low 16 bits
}

// sound takes the sound that is there. Sound of the past is of no use: it would only
// make the receiver's buffer longer.
func (v *viewer) sound(r *ring, open bool, now time.Time) {
	at := &v.position.Audio
	if !open {
		v.audioPos, v.audioCut = r.head, true
		return
	}
	if v.audioPos < r.tail {
		v.audioPos, v.audioCut = r.head-1, true
	}
	for ; v.audioPos < r.head && len(v.batch) < maxBatch; v.audioPos++ {
		s := r.at(v.audioPos)
		if v.audioCut {
			v.audio.restart(s.seq, false)
			v.audioCut = false
		}
		if !v.audioSet {
			if v.audioSet = true; at.Number > 0 {
				at.Shift = shiftFor(at, s, at.Clock, now)
			}
		}
		if n, ok := v.audio.of(s.seq); ok {
			v.add(s.p, n, s.p.Timestamp+at.Shift)
			at.Number, at.Stamp, at.At = v.audio.last, s.p.Timestamp+at.Shift, now
		}
	}
}

// await drops the picture until a key frame at a position or later.
func (v *viewer) await(from uint64, slow bool) {
	v.waiting, v.waitFrom, v.slow = true, from, slow
	v.pos, v.until = v.hub.video.head, 0
}

// picture takes what comes next of one frame, and says if it is live.
func (v *viewer) picture(r *ring, now time.Time) (live bool) {
	if v.refresh && r.keyed {
		v.join(r, now)
	}
	v.refresh = false
	if !v.waiting && v.behind(r, now) {
		v.skipped.Add(r.head - v.pos)
		v.await(r.head, true)
	}
	if v.waiting {
		if !r.keyed || r.key < v.waitFrom {
			if v.slow {
				v.skipped.Add(r.head - v.pos)
			}
			v.pos = r.head
			return false
		}
		v.join(r, now)
	}
	live = v.pos >= v.until
	for frame := uint64(0); v.pos < r.head && len(v.batch) < maxBatch; v.pos++ {
		s := r.at(v.pos)
		if frame != 0 && s.frame != frame {
			break
		}
		frame = s.frame
		n, ok := v.video.of(s.seq)
		if !ok {
			continue
		}
		stamp := v.spans[0].stamp(s)
		v.add(s.p, n, stamp)
		v.partly = !s.p.Marker
		if !v.sent || int32(stamp-v.stamp) > 0 { //nolint:gosec // modular arithmetic of time stamps
			v.sent, v.stamp = true, stamp
		}
	}
	if len(v.batch) > 0 {
		v.position.Video = sessions.Stream{Number: v.video.last, Stamp: v.stamp, Shift: v.spans[0].shift, At: now, Partly: v.partly, Clock: videoClock}
	}
	return live
}

// behind says whether the viewer is too slow. A few packets are not held against it: they
// may have waited for the rest of their frame.
func (v *viewer) behind(r *ring, now time.Time) bool {
	switch {
	case v.pos < r.tail:
		return true
	case v.pos < v.until:
		return now.Sub(v.joined) > tooLong
	}
	return r.head-v.pos > 2*flushAt && now.Sub(r.at(v.pos).at) > tooLate
}

// join begins with the current key frame.
func (v *viewer) join(r *ring, now time.Time) {
	first, newest := r.at(r.key), r.at(r.head-1)
	v.video.restart(first.seq, v.partly)
	at := &v.position.Video
	if !v.videoSet {
		if v.videoSet = true; at.Number > 0 {
			at.Shift = shiftFor(at, newest, videoClock, now)
		}
	}
	s := span{begin: v.video.begin, delta: v.video.delta, shift: at.Shift}
	frames := newest.frame - first.frame + 1
	if v.sent && int32(first.p.Timestamp+s.shift-v.stamp) <= 0 { //nolint:gosec // modular arithmetic of time stamps
		s.step = max(1, squeezed/uint32(frames)) //nolint:gosec // at most maxGOP
		s.base, s.first, s.frame = v.stamp+s.step, first.frame, newest.frame
	}
	copy(v.spans[1:], v.spans[:])
	v.spans[0] = s
	v.pos, v.until = r.key, r.head
	v.pause = min(pace, catchUp/time.Duration(frames)) //nolint:gosec // at most maxGOP
	v.joined, v.waiting, v.slow = now, false, false
}

// repair takes packets that the receiver lost, within the bound of a second.
func (v *viewer) repair(r *ring, now time.Time) {
	if now.Sub(v.repairsAt) >= time.Second {
		v.repairsAt, v.repaired = now, 0
	}
	n := 0
	for ; n < len(v.lost) && len(v.batch) < maxBatch && v.repaired < repairs; n++ {
		number := v.video.heard(v.lost[n])
		for i := range v.spans {
			s := &v.spans[i]
			if s.begin == 0 || number < s.begin {
				continue
			}
			if p, pos, ok := r.find(uint16(number) - s.delta); ok && (i > 0 || pos < v.pos) { //nolint:gosec // the low 16 bits
				v.add(p.p, number, s.stamp(p))
				v.repaired++
			}
			break
		}
	}
	v.lost = v.lost[:copy(v.lost, v.lost[n:])]
	if v.repaired == repairs {
		v.lost = v.lost[:0]
	}
}
