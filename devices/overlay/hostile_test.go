package overlay

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// to has a node log here.
func (c *counted) to(x *node) {
	x.Mesh.log = slog.New(c)
	table, err := records.Open(records.Config{Key: x.key, Roster: x.log.Roster, Store: x.cfg.Store, Dirty: x.disk.look, Logger: x.Mesh.log})
	if err != nil {
		x.t.Fatal(err)
	}
	x.table = table
}

// sign makes a record of this member, whatever the rules say.
func (h *hostile) sign(change func(*records.Record)) records.Signed {
	r := records.Record{Version: 1, Home: h.log.Roster().Home, Subject: h.self.String(), Kind: records.KindDevice, Writer: h.self, Epoch: 1, Sequence: 1, Body: body(h.t, 1)}
	change(&r)
	raw := body(h.t, r)
	sig, err := trust.SignRaw(h.key, raw)
	if err != nil {
		h.t.Fatal(err)
	}
	return records.Signed{Raw: raw, Sig: sig}
}

// signEntry makes a log entry.
func (h *hostile) signEntry(seq, epoch uint64, v any) records.Signed {
	return h.sign(func(r *records.Record) {
		r.Shape, r.Kind, r.Sequence, r.Epoch, r.Body = records.ShapeLog, "call", seq, epoch, body(h.t, v)
	})
}

func body(t testing.TB, v any) []byte {
	t.Helper()
	b, err := records.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostile is a member that speaks frames by hand. Its key is good.
type hostile struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	self  devices.NodeID
	log   *trust.Log
	conns []*tls.Conn
	read  bool
	got   chan frame // what it is sent, as far as anybody looks
}

// besieged is a home of three honest nodes and one hostile member.
type besieged struct {
	nodes []*node
	h     *hostile
	logs  *counted
}

// counted counts warnings.
type counted struct {
	slog.Handler
	mu    sync.Mutex
	warns []string
}

// Enabled is part of slog.Handler.
func (c *counted) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle is part of slog.Handler.
func (c *counted) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warns = append(c.warns, line)
	return nil
}

func (c *counted) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warns)
}

func besiege(t *testing.T) *besieged {
	t.Helper()
	logs := &counted{Handler: slog.DiscardHandler}
	n := home(t, 4, logs.to)
	bad := n[3]
	bad.stop()
	b := &besieged{nodes: n[:3], logs: logs}
	b.h = &hostile{t: t, read: true, got: make(chan frame, 4096), key: bad.key, self: bad.id, log: n[0].log}
	for i, x := range b.nodes {
		if err := x.Publish(records.KindDevice, devices.DeviceRecord{Version: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if err := x.Append("call", i); err != nil {
			t.Fatal(err)
		}
	}
	meet(t, b.nodes...)
	eventually(t, 6*time.Second, "the honest ones agree", b.agree)
	t.Cleanup(func() {
		for _, c := range b.h.conns {
			_ = c.NetConn().Close()
		}
	})
	return b
}

func (b *besieged) agree() bool {
	for _, x := range b.nodes[1:] {
		if !slices.Equal(x.table.Sums(), b.nodes[0].table.Sums()) {
			return false
		}
	}
	return true
}

// honest is all that honest nodes say and believe, without what the hostile one says.
func (b *besieged) honest() string {
	var out strings.Builder
	for _, x := range b.nodes {
		fmt.Fprintf(&out, "%x", x.log.Heads())
		for _, s := range x.table.Sums() {
			if s.Writer != b.h.self {
				fmt.Fprintf(&out, " %v:%x", s.Writer, s.Sum)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (b *besieged) flows() []*flow {
	var out []*flow
	for _, x := range b.nodes {
		for _, y := range b.nodes {
			if x != y {
				out = append(out, x.flow(y.id, trust.ALPNOverlay), x.flow(y.id, trust.ALPNSIP))
			}
		}
	}
	return out
}

// dial connects to a node, as a member does.
func (h *hostile) dial(x *node) *tls.Conn {
	conf, err := trust.MemberTLS(h.key, h.log.Roster, trust.ALPNOverlay)
	if err != nil {
		h.t.Error(err)
		return nil
	}
	c, err := tls.Dial("tcp", x.addr.String(), conf)
	if err != nil {
		return nil
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return nil
	}
	h.conns = append(h.conns, c)
	if h.read {
		go func() {
			for {
				fr, _, err := readDecoded(c)
				if err != nil {
					return
				}
				select {
				case h.got <- fr:
				default:
				}
			}
		}()
	}
	return c
}

func (h *hostile) frame(fr frame) []byte {
	b, err := encodeFrame(fr)
	if err != nil {
		h.t.Error(err)
	}
	return b
}

// flood writes frames to a node until end, dialling again when it is cut off.
func (h *hostile) flood(x *node, end time.Time, next func(i int) []byte) (sent int) {
	var c *tls.Conn
	for i := 0; time.Now().Before(end); i++ {
		if c == nil {
			if c = h.dial(x); c == nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
		}
		_ = c.SetWriteDeadline(end)
		if _, err := c.Write(next(i)); err != nil {
			_ = c.NetConn().Close()
			c, h.conns = nil, nil // what is held here is not the others' memory
			continue
		}
		sent++
	}
	return sent
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// siege is how long each attack lasts; `make soak` sets HALLWAY_SIEGE.
func siege() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("HALLWAY_SIEGE")); err == nil {
		return d
	}
	return 500 * time.Millisecond
}

func randomHash() (h [32]byte) { _, _ = rand.Read(h[:]); return h }

func randomID() (id devices.NodeID) { _, _ = rand.Read(id[:]); return id }

// attacks returns what a hostile member may try. Each gives the i-th frame to send.
func attacks(b *besieged) map[string]func(i int) []byte {
	h, n := b.h, b.nodes
	bombSums := make([]records.Sum, 4096)
	bombState := make([]records.State, 1000)
	for i := range bombSums {
		bombSums[i] = records.Sum{Writer: randomID()}
	}
	for i := range bombState {
		bombState[i] = records.State{Writer: randomID(), First: math.MaxUint64, Count: math.MaxUint64, Blocks: make([][8]byte, 8)}
	}
	bomb1, bomb2 := h.frame(frame{Kind: frameDigest, Digest: bombSums}), h.frame(frame{Kind: frameState, State: bombState})
	var forgedEdits []trust.SignedEdit
	for range 300 {
		e := n[0].log.Edits()[1]
		sig := slices.Clone(e.Sig)
		_, _ = rand.Read(sig)
		raw := slices.Clone(e.Raw)
		raw[len(raw)-1]++
		forgedEdits = append(forgedEdits, trust.SignedEdit{Raw: raw, Sig: sig})
	}
	edits := h.frame(frame{Kind: frameEdits, Edits: forgedEdits})
	old := n[0].log.Edits()[:1]
	impostor := &hostile{t: h.t, key: h.key, log: h.log, self: n[1].id}
	return map[string]func(int) []byte{
		"forged records": func(i int) []byte {
			var list []records.Signed
			for range 20 {
				list = append(list, impostor.sign(func(r *records.Record) { r.Sequence = uint64(i) + 1e6 }))
			}
			return h.frame(frame{Kind: frameRecords, Records: list})
		},
		"forged log entries": func(i int) []byte {
			s := impostor.signEntry(uint64(i)+2, 7, i)
			return h.frame(frame{Kind: frameLog, Records: []records.Signed{s}})
		},
		"equivocation": func(i int) []byte {
			return h.frame(frame{Kind: frameRecords, Records: []records.Signed{h.sign(func(r *records.Record) { r.Sequence, r.Body = 5, body(h.t, i) })}})
		},
		"the highest sequence": func(i int) []byte {
			high := h.sign(func(r *records.Record) { r.Epoch, r.Sequence, r.Body = math.MaxUint64, math.MaxUint64, body(h.t, i) })
			entry := h.signEntry(math.MaxInt64-uint64(i%3), math.MaxUint64, i)
			return append(h.frame(frame{Kind: frameRecords, Records: []records.Signed{high}}), h.frame(frame{Kind: frameLog, Records: []records.Signed{entry}})...)
		},
		"a flood of own records": func(i int) []byte {
			return h.frame(frame{Kind: frameRecords, Records: []records.Signed{h.sign(func(r *records.Record) { r.Kind, r.Sequence = fmt.Sprint("k", i%40), uint64(i+1) })}})
		},
		"a flood of pings": func(int) []byte { return []byte(strings.Repeat("\x00\x00\x00\x01\x01", 2000)) },
		"a stale roster": func(i int) []byte {
			return append(h.frame(frame{Kind: frameHello, Heads: []trust.Hash{old[0].Hash()}, Reply: i%2 == 0}), h.frame(frame{Kind: frameEdits, Edits: old})...)
		},
		"heads that nobody knows": func(int) []byte {
			return h.frame(frame{Kind: frameHello, Heads: []trust.Hash{randomHash(), randomHash()}, Clock: math.MaxInt64})
		},
		"lies about third nodes": func(i int) []byte {
			lie := records.State{Writer: n[1].id, First: 400, Count: 500, Registers: []records.RegisterState{{Kind: records.KindDevice, Subject: n[1].id.String(), Epoch: 9, Sequence: uint64(i) + 1e9}}}
			return h.frame(frame{Kind: frameState, State: []records.State{lie}})
		},
		"withheld records": func(int) []byte {
			return append(h.frame(frame{Kind: frameDigest}), h.frame(frame{Kind: frameRecords, More: true})...)
		},
		"digest bombs": func(i int) []byte { return [][]byte{bomb1, bomb2}[i%2] },
		"edits":        func(int) []byte { return edits },
		"huge frames":  func(int) []byte { return append([]byte{0xff, 0xff, 0xff, 0xff, 5}, make([]byte, 60000)...) },
		"largest ones": func(int) []byte { return append([]byte{0, 4, 0, 0, 77}, make([]byte, MaxFrame-1)...) },
		"nested CBOR":  func(int) []byte { return append([]byte{0, 0, 0x40, 1, 5}, slices.Repeat([]byte{0x81}, 0x4000)...) },
		"blob wants":   func(int) []byte { return h.frame(frame{Kind: frameWant, Want: &blobWant{Hash: randomHash()}}) },
		"blob chunks": func(int) []byte {
			return h.frame(frame{Kind: frameChunk, Chunk: &blobChunk{Data: make([]byte, 60000)}})
		},
		"blobs of none": func(i int) []byte {
			refs := []records.BlobRef{{Hash: randomHash(), Size: 1}, {Hash: randomHash(), Size: records.MaxBlob}}
			return h.frame(frame{Kind: frameRecords, Records: []records.Signed{h.sign(func(r *records.Record) { r.Kind, r.Sequence, r.Blobs = fmt.Sprint("k", i%30), uint64(i+1), refs })}})
		},
	}
}

// Whatever a member sends: all other nodes' roster and records stay as they are, their
// flows stay up, what they say still arrives, memory is bounded, and the log has one
// line for each fault.
func TestHostileMemberIsContained(t *testing.T) {
	b := besiege(t)
	list := attacks(b)
	for _, name := range slices.Sorted(maps.Keys(list)) {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			b.h.t = t
			before, flows, lines := b.honest(), b.flows(), len(b.logs.lines())
			start := heap()
			end := time.Now().Add(siege())
			var wg sync.WaitGroup
			sent := make([]int, 2)
			for i := range sent {
				bad := &hostile{t: t, read: true, got: b.h.got, key: b.h.key, self: b.h.self, log: b.h.log}
				wg.Add(1)
				go func() {
					defer wg.Done()
					sent[i] = bad.flood(b.nodes[i], end, list[name])
					for _, c := range bad.conns {
						_ = c.NetConn().Close()
					}
				}()
			}
			time.Sleep(siege() / 2)
			grown := int64(heap()) - int64(start) //nolint:gosec // heaps are small
			if got := b.honest(); got != before {
				t.Errorf("what the honest nodes hold changed:\n%s\nto\n%s", before, got)
			}
			wg.Wait()
			if got := b.honest(); got != before {
				t.Errorf("what the honest nodes hold changed:\n%s\nto\n%s", before, got)
			}
			if grown > 16<<20 {
				t.Errorf("the attack takes %d MiB", grown>>20)
			}
			if !slices.Equal(flows, b.flows()) {
				t.Error("a flow between honest nodes was lost")
			}
			if got := b.logs.lines()[lines:]; len(got) > 12 {
				t.Errorf("%d lines are logged, such as %v", len(got), got[:5])
			}
			stillTalk(t, b)
			t.Logf("%v frames, heap %+d KiB", sent, grown>>10)
		})
	}
}

// stillTalk shows that a new record of an honest node reaches the others at once, and
// that all come to the same view of the hostile one.
func stillTalk(t *testing.T, b *besieged) {
	t.Helper()
	if err := b.nodes[0].Publish("probe", t.Name()); err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	for _, r := range b.nodes[0].Records() {
		if r.Writer == b.nodes[0].id && r.Kind == "probe" {
			seq = r.Sequence
		}
	}
	has := func(x *node) bool {
		return slices.ContainsFunc(x.Records(), func(r records.Record) bool {
			return r.Writer == b.nodes[0].id && r.Kind == "probe" && r.Sequence == seq
		})
	}
	eventually(t, 2*time.Second, "an honest record arrives", func() bool { return has(b.nodes[1]) && has(b.nodes[2]) })
}

// A member that asks for much and reads nothing costs a bounded queue and its own flow.
func TestHostileSlowReader(t *testing.T) {
	b := besiege(t)
	flows, start := b.flows(), heap()
	var state []records.State // "I have nothing of anybody": all is sent, again and again
	for _, x := range b.nodes {
		state = append(state, records.State{Writer: x.id})
		for i := range 30 {
			if err := x.Publish(fmt.Sprint("large ", i), strings.Repeat("x", 700)); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			if err := x.Append("call", strings.Repeat("x", 700)); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, 12*time.Second, "the honest ones agree", b.agree)
	before := b.honest()
	deaf := &hostile{t: t, key: b.h.key, self: b.h.self, log: b.h.log}
	ask := b.h.frame(frame{Kind: frameState, State: state, Reply: true})
	deaf.flood(b.nodes[0], time.Now().Add(2*siege()), func(int) []byte { return ask })
	grown := int64(heap()) - int64(start) //nolint:gosec // heaps are small
	if grown > 16<<20 {
		t.Errorf("a slow reader takes %d MiB", grown>>20)
	}
	if b.honest() != before || !slices.Equal(flows, b.flows()) {
		t.Error("the others notice it")
	}
	for _, c := range deaf.conns {
		_ = c.NetConn().Close()
	}
	stillTalk(t, b)
}

// What one hostile member says about itself, differently to each, ends the same with all.
func TestHostileEquivocationConverges(t *testing.T) {
	b := besiege(t)
	for i, x := range b.nodes {
		c := b.h.dial(x)
		s := b.h.sign(func(r *records.Record) { r.Sequence, r.Body = 5, body(t, i) })
		e := b.h.signEntry(1, 1, i)
		for _, fr := range []frame{{Kind: frameRecords, Records: []records.Signed{s}}, {Kind: frameLog, Records: []records.Signed{e}}} {
			if _, err := c.Write(b.h.frame(fr)); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, 35*time.Second, "all agree on the lower hash", func() bool {
		return b.agree() && slices.ContainsFunc(b.nodes[0].Records(), func(r records.Record) bool { return r.Writer == b.h.self })
	})
	eventually(t, time.Second, "the writer is flagged", func() bool {
		return slices.ContainsFunc(b.logs.lines(), func(l string) bool { return strings.Contains(l, "two things under one number") })
	})
}
