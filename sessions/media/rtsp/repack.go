package rtsp

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/pion/rtp"

	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
)

const (
	// maxParts bounds the packets that one of the camera's becomes: 64 kB, the largest that
	// RTSP carries, are 56 of ours.
	maxParts = 64
	// maxSet bounds a kept parameter set: real ones have some 10 to 200 bytes.
	maxSet = 1024
)

// repacker makes what a camera sends fit to be sent on: packets below the MTU (over TCP a
// camera's may have 64 kB), one continuous time line whatever the connection, and every key
// frame with its parameter sets before it. It keeps no more of a picture than what does not
// fill a packet, until the next one. One goroutine uses it at a time.
type repacker struct {
	kind    string
	nal     nalForm // zero for sound
	publish func(kind string, p *rtp.Packet, key bool, at time.Time)
	line    media.TimeLine

	sets  [][]byte // parameter sets, in the order of nal.sets
	keyed bool
	stamp uint32 // of the newest key frame, as sent on

	rest []byte // of a fragmented NAL unit that goes on: it leaves with the next fragment
	head []byte // header of the fragments of rest, with the type of the unit
	next uint16 // the camera's number of that fragment
}

// nalForm is what RFC 6184 (H.264) and RFC 7798 (H.265) differ in.
type nalForm struct {
	header              int // bytes of a NAL unit's header
	aggregate, fragment byte
	last                byte   // highest type that is a NAL unit of its own
	sets                []byte // types of the parameter sets, in order
	key                 func(t byte) bool
}

func h264Form() nalForm {
	return nalForm{header: 1, aggregate: 24, fragment: 28, last: 23, sets: []byte{7, 8}, key: func(t byte) bool { return t == 5 }}
}

func h265Form() nalForm {
	return nalForm{header: 2, aggregate: 48, fragment: 49, last: 47, sets: []byte{32, 33, 34}, key: func(t byte) bool { return t >= 16 && t <= 21 }}
}

// typeOf reads the type from the first byte of a NAL unit or payload.
func (f nalForm) typeOf(b byte) byte {
	if f.header == 2 {
		return b >> 1 & 0x3f
	}
	return b & 0x1f
}

// withType is a header of b's with another type.
func (f nalForm) withType(b []byte, t byte) []byte {
	if f.header == 2 {
		return []byte{b[0]&0x81 | t<<1, b[1]}
	}
	return []byte{b[0]&0xe0 | t}
}

func newRepacker(t sessions.Track, publish func(string, *rtp.Packet, bool, time.Time)) *repacker {
	o := &repacker{kind: t.Kind, publish: publish, line: media.TimeLine{Clock: float64(t.Codec.ClockRate)}}
	switch strings.ToUpper(t.Codec.Name) {
	case "H264":
		o.nal = h264Form()
	case "H265":
		o.nal = h265Form()
	}
	o.sets = make([][]byte, len(o.nal.sets))
	return o
}

// begin takes what a new connection's description says.
func (o *repacker) begin(sets [][]byte) {
	o.line.Renew() // whatever the camera calls it, it is another stream
	o.rest = o.rest[:0]
	for i, s := range sets {
		if len(s) > 0 && len(s) <= maxSet {
			o.sets[i] = s
		}
	}
}

// write sends one of the camera's packets on. The packet's payload must not change later; at
// is as Hub.PublishAt wants it.
func (o *repacker) write(p *rtp.Packet, now, at time.Time) {
	if len(o.rest) > 0 && !o.goesOn(p) {
		o.giveRest(at)
	}
	parts, step := o.cut(p.Payload, p.Marker)
	if len(parts) == 0 && len(o.rest) == 0 || len(parts) > maxParts {
		return
	}
	o.next = p.SequenceNumber + 1
	q := &rtp.Packet{Header: rtp.Header{Version: 2, SSRC: p.SSRC, SequenceNumber: p.SequenceNumber, Timestamp: p.Timestamp}}
	o.line.Join(q, now)
	key := false
	if o.nal.header > 0 {
		key = o.keyFrame(p.Payload, q.Timestamp)
		if key && !o.holdsSet(p.Payload) {
			parts = append(o.knownSets(), parts...)
		}
	}
	for i, b := range parts {
		out := *q
		out.SequenceNumber += uint16(i)   //nolint:gosec // few
		out.Timestamp += uint32(i) * step //nolint:gosec // few
		out.Marker = p.Marker && i == len(parts)-1
		out.Payload = b
		o.publish(o.kind, &out, key && i == 0, at)
	}
	o.line.Skip(uint16(len(parts) - 1)) //nolint:gosec // few; one less, if the packet became none
}

// goesOn says whether a packet is the fragment that follows what is kept.
func (o *repacker) goesOn(p *rtp.Packet) bool {
	h := o.nal.header
	b := p.Payload
	return p.SequenceNumber == o.next && len(b) > h+1 && o.nal.typeOf(b[0]) == o.nal.fragment && b[h]&^0x40 == o.head[h]
}

// giveRest sends what is kept by itself: its next fragment was lost. It is of the picture
// that was sent last.
func (o *repacker) giveRest(at time.Time) {
	out := &rtp.Packet{Header: o.line.Extra()}
	out.Payload = append(append([]byte(nil), o.head...), o.rest...)
	o.rest = o.rest[:0]
	o.publish(o.kind, out, false, at)
}

// keyFrame reports whether this packet is the first of a key frame, and keeps the parameter
// sets that pass.
func (o *repacker) keyFrame(b []byte, stamp uint32) bool {
	starts := false
	o.each(b, func(t byte, unit []byte) {
		for i, set := range o.nal.sets {
			if t == set {
				starts = true
				if unit != nil && len(unit) <= maxSet {
					o.sets[i] = append([]byte(nil), unit...)
				}
			}
		}
		starts = starts || o.nal.key(t)
	})
	if !starts || o.keyed && o.stamp == stamp {
		return false
	}
	o.keyed, o.stamp = true, stamp
	return true
}

func (o *repacker) holdsSet(b []byte) (holds bool) {
	o.each(b, func(t byte, _ []byte) {
		for _, set := range o.nal.sets {
			holds = holds || t == set
		}
	})
	return holds
}

// knownSets gives all parameter sets, or none: a part of them helps nobody.
func (o *repacker) knownSets() [][]byte {
	for _, s := range o.sets {
		if len(s) == 0 {
			return nil
		}
	}
	return append([][]byte(nil), o.sets...)
}

// each calls f for every NAL unit that begins in a payload; the unit is nil where only its
// first fragment is there.
func (o *repacker) each(b []byte, f func(t byte, unit []byte)) {
	h := o.nal.header
	if len(b) <= h {
		return
	}
	switch t := o.nal.typeOf(b[0]); {
	case t == o.nal.aggregate:
		for _, u := range units(b[h:]) {
			f(o.nal.typeOf(u[0]), u)
		}
	case t == o.nal.fragment:
		if fu := b[h]; fu&0x80 != 0 {
			f(fu&(0x3f>>(2-h)), nil)
		}
	case t <= o.nal.last:
		f(t, b)
	}
}

// units are the NAL units of an aggregation packet, without its header; what is damaged is
// left out with all behind it.
func units(b []byte) (out [][]byte) {
	for len(b) > 2 && len(out) <= maxParts {
		n := int(binary.BigEndian.Uint16(b))
		if n < 3 || n > len(b)-2 {
			return out
		}
		out = append(out, b[2:2+n])
		b = b[2+n:]
	}
	return out
}

// cut makes parts below the MTU; step is how far apart their time stamps are. What cannot be
// understood gives none. last is of the picture's last packet: nothing of it is kept.
func (o *repacker) cut(b []byte, last bool) (parts [][]byte, step uint32) {
	h := o.nal.header
	switch {
	case len(b) == 0:
		return nil, 0
	case h == 0 && o.line.Clock == 8000: // G.711 and G.722: a byte is a tick (RFC 3551 section 4.5)
		for len(b) > media.MTU {
			parts, b = append(parts, b[:media.MTU]), b[media.MTU:]
		}
		return append(parts, b), media.MTU
	case len(b) <= h || h == 0 && len(b) > media.MTU: // a larger packet of Opus is none
		return nil, 0
	case h == 0 || len(b) <= media.MTU && len(o.rest) == 0 && o.understood(b):
		return [][]byte{b}, 0
	}
	switch t := o.nal.typeOf(b[0]); {
	case t == o.nal.aggregate:
		for _, u := range units(b[h:]) {
			parts = append(parts, o.fragments(u)...)
			if len(parts) > maxParts {
				return nil, 0
			}
		}
		return parts, 0
	case t == o.nal.fragment:
		return o.refragment(b, last), 0
	case t <= o.nal.last:
		return o.fragments(b), 0
	}
	return nil, 0
}

// understood leaves out the payloads of the interleaved mode (RFC 6184 section 5.2), which
// receivers of ours do not know.
func (o *repacker) understood(b []byte) bool {
	t := o.nal.typeOf(b[0])
	return t <= o.nal.last || t == o.nal.aggregate || t == o.nal.fragment && len(b) > o.nal.header+1
}

// fragments cuts one NAL unit (RFC 6184 section 5.8, RFC 7798 section 4.4.3).
func (o *repacker) fragments(u []byte) [][]byte {
	h := o.nal.header
	if len(u) <= media.MTU {
		return [][]byte{u}
	}
	return chop(o.nal.withType(u, o.nal.fragment), o.nal.typeOf(u[0]), u[h:], true, true)
}

// refragment makes the fragments of a camera smaller. Cut one by one they would leave a small
// remainder each; so what does not fill a packet is put before the next fragment. Packets are
// fewer then, and as large as each other, which lets them leave in one call.
func (o *repacker) refragment(b []byte, last bool) [][]byte {
	h := o.nal.header
	if len(b) <= h+1 {
		return nil
	}
	fu := b[h]
	ends := fu&0x40 != 0
	o.head = append(append(o.head[:0], b[:h]...), fu&0x3f)
	o.rest = append(o.rest, b[h+1:]...)
	n := len(o.rest)
	if size := media.MTU - h - 1; !ends && !last { // the last packet is never empty
		n = (n - 1) / size * size
	}
	parts := chop(b[:h], fu&0x3f, o.rest[:n], fu&0x80 != 0, ends)
	o.rest = o.rest[:copy(o.rest, o.rest[n:])]
	return parts
}

func chop(header []byte, t byte, rest []byte, first, last bool) (parts [][]byte) {
	size := media.MTU - len(header) - 1
	for len(rest) > 0 {
		n := min(size, len(rest))
		fu := t
		if first && len(parts) == 0 {
			fu |= 0x80
		}
		if last && n == len(rest) {
			fu |= 0x40
		}
		part := append(append(make([]byte, 0, len(header)+1+n), header...), fu)
		parts, rest = append(parts, append(part, rest[:n]...)), rest[n:]
	}
	return parts
}
