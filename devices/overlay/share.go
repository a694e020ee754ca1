package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// forwardTo: a record is pushed by its writer to all it reaches; each who hears of it
	// first passes it on to so many more. That reaches whom the writer does not, without
	// sending everything a square of times.
	forwardTo = 3
	// maxHeads bounds the concurrent edits that are compared: more than an honest home,
	// which joins them four at a time, ever has.
	maxHeads = 256
	// finedEdits bounds the fine for one frame with refused edits among them.
	finedEdits = 32
	// feedBuffer is how far a reader of a feed may fall behind.
	feedBuffer = 1024
)

func (m *Mesh) hello(reply bool) frame {
	return frame{Kind: frameHello, Heads: m.cfg.Roster.Heads(), Reply: reply, Clock: m.cfg.Clock().UnixMilli()}
}

// digest carries the roster heads too, so that a hello that was left unanswered is made
// up for.
func (m *Mesh) digest() frame {
	return frame{Kind: frameDigest, Digest: m.table.sums(), Heads: m.cfg.Roster.Heads()}
}

// handle takes one frame from a peer. An error ends the flow.
func (m *Mesh) handle(f *flow, fr frame) error {
	if fr.Clock != 0 {
		m.clock.hear(f.key.peer, fr.Clock)
	}
	if n := len(fr.Heads); n > 0 && n <= maxHeads {
		m.mu.Lock()
		f.heads = fr.Heads
		m.mu.Unlock()
	}
	switch fr.Kind {
	case framePing:
		if f.quietFor() > answerRest {
			f.send(frame{Kind: framePing})
		}
	case frameHello:
		m.takeHello(f, fr)
	case frameEdits:
		m.takeEdits(f, fr)
	case frameDigest:
		if len(fr.Heads) > 0 && !slices.Equal(fr.Heads, m.cfg.Roster.Heads()) {
			m.takeHello(f, frame{Kind: frameHello, Heads: fr.Heads})
		}
		if m.mayAsk(f) {
			f.sendState(m.table.state(m.table.differing(fr.Digest)), false)
		}
	case frameState:
		if m.mayAsk(f) {
			m.answer(f, fr)
		}
	case frameRecords:
		m.takeRecords(f, fr)
	case frameLog:
		m.takeLog(f, fr)
	case frameWant:
		m.serveBlob(f, fr.Want)
	case frameChunk:
		if fr.Chunk != nil && m.blobs.deliver(f.key.peer, fr.Chunk) {
			f.fines -= len(fr.Chunk.Data) // asked for
		}
	}
	return nil
}

// mayAsk bounds what a peer's questions cost; those beyond are left unanswered.
func (m *Mesh) mayAsk(f *flow) bool {
	if f.limits.mayAsk() {
		return true
	}
	f.fines += fine
	m.complain(f.key.peer, "too many questions", nil)
	return false
}

// takeHello brings two rosters together. Who knows the other's heads knows what the other
// lacks, sends it, and then says with its own heads that this was all. Who does not know
// them is behind: it says where it is and is sent the rest. Two who are both behind send
// all they have; the hellos that follow the merge do the rest.
func (m *Mesh) takeHello(f *flow, fr frame) {
	if !m.mayAsk(f) {
		return
	}
	equal := slices.Equal(fr.Heads, m.cfg.Roster.Heads()) // as most often
	ahead := equal || m.knowsHeads(fr.Heads)
	if !equal && (ahead || fr.Reply) {
		if edits := m.cfg.Roster.Since(fr.Heads); len(edits) > 0 {
			f.sendEdits(edits)
		}
	}
	if !fr.Reply {
		f.send(m.hello(true))
	}
	if ahead {
		m.mu.Lock()
		f.compared = true
		m.gate.look()
		m.mu.Unlock()
	}
}

// Agrees reports whether a peer that is connected has told, at most digestEvery ago, that its
// roster is this node's.
func (m *Mesh) Agrees(id devices.NodeID) bool {
	f := m.flow(id, trust.ALPNOverlay)
	if f == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Equal(f.heads, m.cfg.Roster.Heads())
}

// knowsHeads reports whether this node has everything that a peer with these heads has.
func (m *Mesh) knowsHeads(heads []trust.Hash) bool {
	return len(heads) <= maxHeads && len(m.cfg.Roster.Edits(heads...)) == len(heads) && len(heads) > 0
}

func (m *Mesh) takeEdits(f *flow, fr frame) {
	if _, err := m.cfg.Roster.Merge(fr.Edits); err != nil {
		f.fines += fine * min(len(fr.Edits), finedEdits)
		m.complain(f.key.peer, "roster edits", err)
	}
}

// answer sends what a peer's state lacks, and asks for what this node lacks.
func (m *Mesh) answer(f *flow, fr frame) {
	r := m.table.lacking(fr.State)
	f.sendRecords(r.records, r.more)
	f.sendLog(r.entries, r.more)
	if len(r.ask) > 0 && !fr.Reply {
		f.sendState(m.table.state(r.ask), true)
	}
}

func (m *Mesh) takeRecords(f *flow, fr frame) {
	taken := 0
	for _, s := range fr.Records {
		r, lost, err := m.table.accept(s)
		switch {
		case errors.Is(err, errStale):
		case err != nil:
			f.fines += fine
			m.complain(f.key.peer, rootOf(err), err)
		default:
			taken++
			m.forward(f, r.Writer, frame{Kind: frameRecords, Records: []Signed{s}})
			m.recordChanged(r)
			m.renew(lost)
		}
	}
	if fr.More && taken > 0 {
		f.send(m.digest())
	}
}

// renew says again what this node had said before its store lost its tail.
func (m *Mesh) renew(lost *Record) {
	if lost == nil {
		return
	}
	err := m.write(draft{subject: lost.Subject, kind: lost.Kind, body: lost.Body, ttl: lost.TTL, blobs: lost.Blobs, raiseEpoch: true})
	if err != nil {
		m.log.Error("cannot renew an own record", "err", err)
	}
}

func (m *Mesh) takeLog(f *flow, fr frame) {
	taken, records, redo, err := m.table.acceptLog(fr.Records)
	if err != nil {
		f.fines += fine
		m.complain(f.key.peer, rootOf(err), err)
	}
	for i, r := range records {
		m.forward(f, r.Writer, frame{Kind: frameLog, Records: taken[i : i+1]})
		m.entries.publish(r)
	}
	for _, r := range redo {
		if err := m.append(draft{kind: r.Kind, body: r.Body, blobs: r.Blobs, raiseEpoch: true}); err != nil {
			m.log.Error("cannot renew an own log entry", "err", err)
		}
	}
	if fr.More && len(taken) > 0 {
		f.send(m.digest())
	}
	if len(records) > 0 {
		m.blobs.wake.look()
	}
}

// rootOf names the kind of a fault, in one of few texts.
func rootOf(err error) string {
	for _, e := range []error{ErrRecordSize, ErrRecordForm, ErrRecordHome, ErrRecordWriter, ErrRecordSignature, ErrRecordKeys, ErrRecordRate} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "it could not be stored"
}

// forward passes something new on to a few others.
func (m *Mesh) forward(from *flow, writer devices.NodeID, fr frame) {
	b, err := encodeFrame(fr)
	if err != nil {
		return
	}
	left := forwardTo
	for _, f := range m.overlayFlows() { // map order: random ones
		if f == from || f.key.peer == writer {
			continue
		}
		f.sendBytes(b)
		if left--; left == 0 {
			return
		}
	}
}

func (m *Mesh) broadcast(fr frame) {
	b, err := encodeFrame(fr)
	if err != nil {
		m.log.Error("cannot encode a frame", "err", err)
		return
	}
	for _, f := range m.overlayFlows() {
		f.sendBytes(b)
	}
}

// Statement is what Write says.
type Statement struct {
	Subject string        // empty: this node
	Kind    string        // names the register for this subject
	Body    any           // becomes deterministic CBOR; nil retracts
	TTL     time.Duration // whole seconds on each receiver's own clock; 0 = for ever
	Blobs   []BlobRef     // blobs that live at least as long as this
}

// Publish writes this node's own record of a kind: body is deterministic CBOR. The
// record is durable before anybody hears of it.
func (m *Mesh) Publish(kind string, body any) error {
	return m.Write(Statement{Kind: kind, Body: body})
}

// Write makes a register say something new. It is durable before anybody hears of it. A
// statement that the roster does not let this node make gives ErrRecordWriter.
func (m *Mesh) Write(s Statement) error {
	raw, err := marshal(s.Body)
	if err != nil {
		return err
	}
	if s.TTL < 0 || s.TTL > time.Duration(^uint32(0))*time.Second {
		return fmt.Errorf("%w: a time of %v", ErrRecordForm, s.TTL)
	}
	return m.write(draft{subject: s.Subject, kind: s.Kind, body: raw, ttl: uint32((s.TTL + time.Second - 1) / time.Second), blobs: s.Blobs})
}

// Retract leaves a tombstone in place of a statement. It does not expire, and goes on
// counting among the 32 records of this node.
func (m *Mesh) Retract(subject, kind string) error {
	return m.write(draft{subject: subject, kind: kind, body: tombstone})
}

func (m *Mesh) write(d draft) error {
	s, err := m.table.write(m.cfg.Key, d)
	if err != nil {
		return err
	}
	m.broadcast(frame{Kind: frameRecords, Records: []Signed{s.signed}})
	m.recordChanged(s.rec)
	return nil
}

// Append adds an entry to this node's log, which all members hold: the last 500 entries
// of each writer, in order and without gaps. It is durable before anybody hears of it.
func (m *Mesh) Append(kind string, body any, blobs ...BlobRef) error {
	raw, err := marshal(body)
	if err != nil {
		return err
	}
	return m.append(draft{kind: kind, body: raw, blobs: blobs})
}

func (m *Mesh) append(d draft) error {
	r, s, err := m.table.append(m.cfg.Key, d)
	if err != nil {
		return err
	}
	m.broadcast(frame{Kind: frameLog, Records: []Signed{s}})
	m.entries.publish(r)
	m.blobs.wake.look()
	return nil
}

// Entries lists the log entries of all members, by writer and in each writer's order;
// kind "" means all kinds.
func (m *Mesh) Entries(kind string) ([]Record, error) { return m.table.entries(kind) }

// Records lists the registers of all members, own ones included; what was retracted or
// ran out is not among them.
func (m *Mesh) Records() []Record {
	var out []Record
	for _, s := range m.table.all() {
		if !s.expired && !s.rec.Gone() {
			out = append(out, s.rec)
		}
	}
	return out
}

// WatchRecords tells of registers accepted or written from now on; when one is retracted
// or runs out, Gone is true. The channel is closed when ctx or the mesh ends, or when the
// reader falls far behind: read Records anew.
func (m *Mesh) WatchRecords(ctx context.Context) <-chan Record { return m.records.watch(ctx) }

// WatchEntries does the same for log entries.
func (m *Mesh) WatchEntries(ctx context.Context) <-chan Record { return m.entries.watch(ctx) }

func (m *Mesh) recordChanged(r Record) {
	m.learn(r)
	m.records.publish(r)
	if len(r.Blobs) > 0 {
		m.blobs.wake.look()
	}
}

// expire tells of records that ran out; own ones are retracted, so that all agree.
func (m *Mesh) expire(now time.Time) {
	for _, r := range m.table.expire(now) {
		if r.Writer == m.self {
			m.trouble("cannot retract a record that ran out", m.Retract(r.Subject, r.Kind))
			continue
		}
		r.Body = tombstone
		m.records.publish(r)
	}
}

// feed tells readers of records. The zero value is ready.
type feed struct {
	mu    sync.Mutex
	subs  map[chan Record]struct{}
	ended bool
}

func (f *feed) watch(ctx context.Context) <-chan Record {
	ch := make(chan Record, feedBuffer)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		close(ch)
		return ch
	}
	if f.subs == nil {
		f.subs = map[chan Record]struct{}{}
	}
	f.subs[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(ch)
	})
	return ch
}

// drop must be called with mu held.
func (f *feed) drop(ch chan Record) {
	if _, ok := f.subs[ch]; ok {
		delete(f.subs, ch)
		close(ch)
	}
}

func (f *feed) publish(r Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subs {
		select {
		case ch <- r:
		default:
			f.drop(ch)
		}
	}
}

func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for ch := range f.subs {
		f.drop(ch)
	}
}
