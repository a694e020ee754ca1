package sessions

import (
	"slices"
	"time"
)

const (
	// silentAfter is how long a way that was agreed may carry nothing before it is said.
	silentAfter = 3 * time.Second
	// reportEvery is how often the other side reports what it receives (RFC 3550 section 6.2).
	reportEvery = time.Second
)

// pulse watches whether one kind of media gets through, each way, by counters that move.
type pulse struct {
	received, sent       uint64
	reached              uint32
	heard, spoke, landed time.Time // when each last moved
}

// troubles are the sentences for what was agreed and does not flow, and for a source or sink
// of this side that does not work.
type troubles map[string]*pulse

// look compares the counters with those of the last look and says what stands still. A way
// that is not agreed, on hold or muted, is no trouble.
func (t troubles) look(now time.Time, media []MediaState, s LegStats, name string) (words []string) {
	for _, end := range []string{s.Source, s.Sink} {
		if end != "" {
			words = append(words, end)
		}
	}
	deaf, mute, lost := []string{}, []string{}, []string{}
	for _, m := range media {
		p, st := t[m.Kind], s.Audio
		if m.Kind == "video" {
			st = s.Video
		}
		if p == nil {
			p = &pulse{heard: now, spoke: now, landed: now}
			t[m.Kind] = p
		}
		if st.PacketsReceived != p.received || !m.Direction.Receives() {
			p.received, p.heard = st.PacketsReceived, now
		}
		if !m.Direction.Sends() {
			p.spoke, p.landed = now, now
		}
		if st.PacketsSent != p.sent {
			p.sent, p.spoke = st.PacketsSent, now
		}
		if st.Peer.HighestSequence != p.reached || p.spoke != now {
			p.reached, p.landed = st.Peer.HighestSequence, now
		}
		if now.Sub(p.heard) >= silentAfter {
			deaf = append(deaf, m.Kind)
		}
		if now.Sub(p.spoke) >= silentAfter {
			mute = append(mute, m.Kind)
		}
		if now.Sub(p.landed) >= silentAfter+reportEvery {
			lost = append(lost, m.Kind)
		}
	}
	if len(deaf) > 0 {
		words = append(words, oneWay(deaf)+" comes from "+name+".")
	}
	if len(lost) > 0 {
		words = append(words, oneWay(lost)+" of this device reaches "+name+".")
	}
	if len(mute) > 0 && s.Source == "" { // else it was just said why
		words = append(words, oneWay(mute)+" comes from the camera or microphone of this device.")
	}
	return words
}

// examine looks at every running call; the agent does so each second.
func (a *Agent) examine(now time.Time) {
	for _, c := range a.live() {
		c.mu.Lock()
		d := c.dialog
		if d == nil || c.info.State != StateActive {
			c.mu.Unlock()
			continue
		}
		words := c.troubles.look(now, d.leg.Media(), d.leg.Counters(), d.device.Name)
		same := slices.Equal(words, c.info.Trouble)
		c.mu.Unlock()
		c.retell(d)
		if !same {
			a.log.Info("what gets through has changed", "call", c.id, "peer", d.device.Slug, "trouble", words)
			c.change(func(i *CallInfo) { i.Trouble = words })
		}
	}
}
