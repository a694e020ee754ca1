package overlay

import (
	"context"
	"slices"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
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
)

func (m *Mesh) hello(reply bool) frame {
	return frame{Kind: frameHello, Heads: m.cfg.Roster.Heads(), Reply: reply, Clock: m.cfg.Clock().UnixMilli()}
}

// digest carries the roster heads too, so that a hello that was left unanswered is made
// up for.
func (m *Mesh) digest() frame {
	return frame{Kind: frameDigest, Digest: m.table.Sums(), Heads: m.cfg.Roster.Heads()}
}

// takePing takes the sign of life of a peer and answers it, unless something was just said.
func (m *Mesh) takePing(f *flow, fr frame) error {
	if fr.Clock != 0 {
		m.clock.hear(f.key.peer, fr.Clock)
	}
	if f.quietFor() > answerRest {
		return f.answerPing()
	}
	return nil
}

// handle takes one frame from a peer. It may wait for the disk.
func (m *Mesh) handle(f *flow, fr frame) {
	if fr.Clock != 0 {
		m.clock.hear(f.key.peer, fr.Clock)
	}
	if n := len(fr.Heads); n > 0 && n <= maxHeads {
		m.mu.Lock()
		f.heads = fr.Heads
		m.mu.Unlock()
	}
	switch fr.Kind {
	case frameHello:
		m.takeHello(f, fr)
	case frameEdits:
		m.takeEdits(f, fr)
	case frameDigest:
		if len(fr.Heads) > 0 && !slices.Equal(fr.Heads, m.cfg.Roster.Heads()) {
			m.takeHello(f, frame{Kind: frameHello, Heads: fr.Heads})
		}
		if m.mayAsk(f) {
			f.sendState(m.table.State(m.table.Differing(fr.Digest)), false)
		}
	case frameState:
		if m.mayAsk(f) {
			m.answer(f, fr)
		}
	case frameRecords, frameLog:
		m.takeRecords(f, fr)
	case frameWant:
		m.serveBlob(f, fr.Want)
	case frameChunk:
		if fr.Chunk != nil && m.fetch.deliver(f.key.peer, fr.Chunk) {
			f.fines -= len(fr.Chunk.Data) // asked for
		}
	}
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
	r := m.table.Lacking(fr.State, maxExchange)
	f.sendRecords(frameRecords, r.Registers, r.More)
	f.sendRecords(frameLog, r.Entries, r.More)
	if len(r.Ask) > 0 && !fr.Reply {
		f.sendState(m.table.State(r.Ask), true)
	}
}

// takeRecords takes registers or log entries and tells others what is new.
func (m *Mesh) takeRecords(f *flow, fr frame) {
	t := m.table.Take(fr.Records)
	if t.Refused > 0 {
		f.fines += fine * t.Refused
		m.complain(f.key.peer, records.Reason(t.Err), t.Err)
	}
	for _, p := range t.New {
		m.forward(f, p)
		m.changed(p.Record)
	}
	for _, p := range t.Renewed {
		m.tell(p)
	}
	if fr.More && len(t.New) > 0 {
		f.send(m.digest())
	}
}

// forward passes something new on to a few others.
func (m *Mesh) forward(from *flow, p records.Proven) {
	b, err := encodeFrame(pushed(p))
	if err != nil {
		return
	}
	left := forwardTo
	for _, f := range m.overlayFlows() { // map order: random ones
		if f == from || f.key.peer == p.Record.Writer {
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

// Publish writes this node's own register of a kind: body is deterministic CBOR. The
// record is durable before anybody hears of it.
func (m *Mesh) Publish(kind string, body any) error {
	return m.Write(records.Statement{Kind: kind, Body: body})
}

// Write makes a register say something new (records.Table.Write) and tells everybody.
func (m *Mesh) Write(s records.Statement) error {
	p, err := m.table.Write(s)
	if err == nil {
		m.tell(p)
	}
	return err
}

// Retract leaves a tombstone in place of a statement.
func (m *Mesh) Retract(subject, kind string) error {
	return m.Write(records.Statement{Subject: subject, Kind: kind})
}

// Append adds an entry to this node's log (records.Table.Append) and tells everybody.
func (m *Mesh) Append(kind string, body any, blobs ...records.BlobRef) error {
	p, err := m.table.Append(kind, body, blobs...)
	if err == nil {
		m.tell(p)
	}
	return err
}

// tell pushes a record of this node to all that it reaches.
func (m *Mesh) tell(p records.Proven) {
	m.broadcast(pushed(p))
	m.changed(p.Record)
}

// pushed is the frame that carries one new record.
func pushed(p records.Proven) frame {
	kind := frameRecords
	if p.Record.Shape == records.ShapeLog {
		kind = frameLog
	}
	return frame{Kind: kind, Records: []records.Signed{p.Signed}}
}

// changed follows what a new record says about addresses and blobs.
func (m *Mesh) changed(r records.Record) {
	m.learn(r)
	if len(r.Blobs) > 0 {
		m.fetch.wake.look()
	}
}

// Records lists the registers of all members (records.Table.Records).
func (m *Mesh) Records() []records.Record { return m.table.Records() }

// Entries lists the log entries of all members (records.Table.Entries).
func (m *Mesh) Entries(kind string) ([]records.Record, error) { return m.table.Entries(kind) }

// Bindings lists the newest binding of each phone that has one, by the phone's ID.
func (m *Mesh) Bindings() map[devices.NodeID]records.Binding { return m.table.Bindings() }

// WatchRecords tells of registers from now on (records.Table.Watch); the channel is closed
// when ctx or the mesh ends, too.
func (m *Mesh) WatchRecords(ctx context.Context) <-chan records.Record {
	return m.table.Watch(ctx, records.ShapeRegister)
}

// WatchEntries does the same for log entries.
func (m *Mesh) WatchEntries(ctx context.Context) <-chan records.Record {
	return m.table.Watch(ctx, records.ShapeLog)
}

// expire retracts registers of this node that ran out.
func (m *Mesh) expire(now time.Time) {
	for _, r := range m.table.Expire(now) {
		m.trouble("cannot retract a record that ran out", m.Retract(r.Subject, r.Kind))
	}
}
