package sim

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// model knows what was really done, and what follows from it (see oracle).
type model struct {
	keys    map[devices.NodeID]*ecdsa.PublicKey
	root    *ecdsa.PublicKey              // of the recovery code
	intents map[string]bool               // what owners asked for
	said    map[statement]map[string]bool // every body that a writer published
	want    map[statement]map[string]bool // those that may be its newest; "" is none
	entries map[devices.NodeID][]string   // of each writer's log, those that cannot be lost, in order
	edits   map[trust.Hash]*edit          // what is in any log, by its content
	records map[[32]byte]records.Record   // records whose signature was checked
	homes   map[string]home               // what the oracle said, by heads and waiting removals
}

// statement is what a later record of the writer replaces.
type statement struct {
	writer devices.NodeID
	kind   string
}

// edit is one change of the home, and all that its author knew. That of the last piece of a
// checkpoint is all that the checkpoint stands for.
type edit struct {
	trust.Edit
	hash trust.Hash
	knew map[trust.Hash]bool
}

func newModel(keys map[devices.NodeID]*ecdsa.PublicKey) *model {
	return &model{
		homes: map[string]home{}, keys: keys, intents: map[string]bool{}, said: map[statement]map[string]bool{}, want: map[statement]map[string]bool{},
		entries: map[devices.NodeID][]string{}, edits: map[trust.Hash]*edit{}, records: map[[32]byte]records.Record{},
	}
}

// publishes notes a publication. One that a crash may have undone leaves the older one
// possible.
func (m *model) publishes(w devices.NodeID, kind, body string, certain bool) {
	s := statement{w, kind}
	if m.said[s] == nil {
		m.said[s], m.want[s] = map[string]bool{}, map[string]bool{"": true}
	}
	m.said[s][body] = true
	if certain {
		m.want[s] = map[string]bool{}
	}
	m.want[s][body] = true
}

// kindEntry is the kind of all log entries.
const kindEntry = "entry"

// appends notes a log entry; one that a crash may have undone can be lost.
func (m *model) appends(w devices.NodeID, body string, certain bool) {
	s := statement{w, kindEntry}
	if m.said[s] == nil {
		m.said[s] = map[string]bool{}
	}
	m.said[s][body] = true
	if certain {
		m.entries[w] = append(m.entries[w], body)
	}
}

// losesTail notes that a writer forgot: whatever it ever said, or nothing, may be its
// newest statement until it speaks again.
func (m *model) losesTail(w devices.NodeID) {
	delete(m.entries, w)
	for s, all := range m.said {
		if s.writer != w || s.kind == kindEntry {
			continue
		}
		m.want[s] = map[string]bool{"": true}
		for body := range all {
			m.want[s][body] = true
		}
	}
}

func intent(author devices.NodeID, op trust.Op, subject devices.NodeID, name string) string {
	return fmt.Sprintf("%s %s %s %s", author, op, subject, name)
}

func (m *model) intends(author devices.NodeID, op trust.Op, subject devices.NodeID, name string) {
	m.intents[intent(author, op, subject, name)] = true
}

// fits checks a signature with nothing but the standard library.
func fits(pub *ecdsa.PublicKey, raw, sig []byte) bool {
	if pub == nil || len(sig) != 64 {
		return false
	}
	sum := sha256.Sum256(raw)
	return ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// takeRecord checks one stored record: signed by its writer, about itself, and a thing
// that this writer did say.
func (m *model) takeRecord(s records.Signed) (records.Record, error) {
	id := sha256.Sum256(append(append([]byte{}, s.Raw...), s.Sig...))
	if r, ok := m.records[id]; ok {
		return r, nil
	}
	var r records.Record
	if err := decoding.Unmarshal(s.Raw, &r); err != nil {
		return r, err
	}
	if !fits(m.keys[r.Writer], s.Raw, s.Sig) {
		return r, fmt.Errorf("a record of %s is not signed by it", r.Writer)
	}
	if r.Subject != r.Writer.String() {
		return r, fmt.Errorf("%s wrote about %s", r.Writer, r.Subject)
	}
	if !m.said[statement{r.Writer, r.Kind}][bodyOf(r)] {
		return r, fmt.Errorf("%s never said %q of kind %s", r.Writer, bodyOf(r), r.Kind)
	}
	m.records[id] = r
	return r, nil
}

// takeEdit checks one stored edit: signed by a key that was an owner's, and asked for.
func (m *model) takeEdit(s trust.SignedEdit) error {
	h := sha256.Sum256(s.Raw)
	if m.edits[h] != nil {
		return nil
	}
	e := &edit{hash: h, knew: map[trust.Hash]bool{}}
	if err := decoding.Unmarshal(s.Raw, &e.Edit); err != nil {
		return err
	}
	knew := e.Parents
	if e.Op == trust.OpCheckpoint && e.Index+1 == e.Count {
		heads, err := m.standsFor(e)
		if err != nil {
			return err
		}
		knew = slices.Concat(knew, heads)
	}
	for _, p := range knew {
		parent := m.edits[p]
		if parent == nil {
			return errors.New("an edit is stored without its parent")
		}
		e.knew[p] = true
		maps.Copy(e.knew, parent.knew)
	}
	pub := m.keys[e.Signer]
	if e.Op == trust.OpGenesis {
		root, err := devices.ParseCompressedKey(e.Root)
		if err != nil || keyID(e.Root) != devices.NodeID(e.Home) {
			return errors.New("the home is not named after its root key")
		}
		m.root = root
	}
	if e.byCode() {
		pub = m.root
	}
	if !fits(pub, s.Raw, s.Sig) {
		return fmt.Errorf("an edit %s of %s is not signed by it", e.Op, e.Signer)
	}
	if e.Op != trust.OpGenesis && e.Op != trust.OpMerge && !m.intents[intent(e.Signer, e.Op, e.subject(), e.Name)] {
		return fmt.Errorf("%s never asked for %s of %s %q", e.Signer, e.Op, e.subject(), e.Name)
	}
	m.edits[h] = e
	return nil
}

// standsFor reads the heads out of a checkpoint whose last piece is given. Whatever else it
// says must follow from the edits below them.
func (m *model) standsFor(last *edit) ([]trust.Hash, error) {
	raw := last.Chunk
	for p := last; p.Index > 0; {
		if p = m.edits[p.Parents[0]]; p == nil {
			return nil, errors.New("a piece of a checkpoint is stored without the one before it")
		}
		raw = slices.Concat(p.Chunk, raw)
	}
	var state struct {
		Heads []trust.Hash `cbor:"4,keyasint"`
	}
	return state.Heads, decoding.Unmarshal(raw, &state)
}

// subject is the node that an edit is about.
func (e *edit) subject() devices.NodeID {
	if len(e.Key) > 0 {
		return keyID(e.Key)
	}
	return e.Node
}

// base is the checkpoint that counts among edits: the one with more before it, then the
// lower hash.
func (m *model) base(held []trust.Hash) *edit {
	var best *edit
	for _, h := range held {
		e := m.edits[h]
		if e.Op != trust.OpCheckpoint || e.Index+1 != e.Count {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(best.Number, e.Number), bytes.Compare(e.State, best.State), bytes.Compare(e.hash[:], best.hash[:])) < 0 {
			best = e
		}
	}
	return best
}

// counted are the edits that a log with these means: what its checkpoint stands for, and
// what was signed knowing the checkpoint.
func (m *model) counted(held []trust.Hash) map[trust.Hash]*edit {
	out, b := map[trust.Hash]*edit{}, m.base(held)
	add := func(h trust.Hash) {
		if e := m.edits[h]; e.Op != trust.OpCheckpoint {
			out[h] = e
		}
	}
	for _, h := range held {
		if b == nil || m.edits[h].knew[b.hash] {
			add(h)
		}
	}
	if b != nil {
		for h := range b.knew {
			add(h)
		}
	}
	return out
}

// finals are a checkpoint and those that it stands on.
func (m *model) finals(b *edit) []final {
	if b == nil {
		return nil
	}
	var below []trust.Hash
	for h := range b.knew {
		below = append(below, h)
	}
	key := fmt.Sprintf("%x", b.hash)
	if _, ok := m.homes[key]; !ok {
		m.homes[key] = ask(m.counted(below), nil, m.finals(m.base(below)))
	}
	return append(m.finals(m.base(below)), final{b, m.homes[key].void})
}

// forced says of a removal by one owner alone whether it has force on a node.
type forced int

const (
	either  forced = iota // a day is not over for all
	waits                 // a day cannot be over
	inForce               // a day is over
)

// ask gives what the oracle says of a log; of removals by one owner alone it may be several
// things.
func (m *model) ask(held []trust.Hash, force forced) []home {
	set := m.counted(held)
	lone, never := []*edit{}, []*edit{}
	for _, e := range set {
		if !m.lone(e) {
			continue
		}
		switch force {
		case either:
			lone = append(lone, e)
		case waits:
			never = append(never, e)
		}
	}
	byHash := func(a, b *edit) int { return bytes.Compare(a.hash[:], b.hash[:]) }
	slices.SortFunc(lone, byHash)
	slices.SortFunc(never, byHash)
	id := sha256.New()
	for _, h := range slices.SortedFunc(maps.Keys(set), func(a, b trust.Hash) int { return bytes.Compare(a[:], b[:]) }) {
		_, _ = id.Write(h[:])
	}
	var out []home
	for some := range 1 << min(len(lone), maxLone) {
		key, wait := fmt.Sprintf("%x", id.Sum(nil)), map[*edit]bool{}
		for i, e := range lone {
			wait[e] = some>>i&1 == 1
		}
		for _, e := range never {
			wait[e] = true
		}
		for _, e := range slices.SortedFunc(maps.Keys(wait), byHash) {
			key += fmt.Sprintf(" %x %v", e.hash, wait[e])
		}
		if _, ok := m.homes[key]; !ok {
			m.homes[key] = ask(set, wait, m.finals(m.base(held)))
		}
		out = append(out, m.homes[key])
	}
	return out
}

// maxLone bounds the removals by one owner whose force is guessed; no program has more.
const maxLone = 4

func pad(b []byte) []byte { return append(slices.Clone(b), make([]byte, max(0, 32-len(b)))...) }

// lone reports whether one owner alone carries out what it proposed. It may still be of a
// family that needs no second one.
func (m *model) lone(e *edit) bool {
	p := m.edits[trust.Hash(pad(e.Proposal))]
	return e.Op == trust.OpAgree && p != nil && p.Signer == e.Signer
}

// someoneWaits reports whether one owner alone ever removed another.
func (m *model) someoneWaits() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(m.edits)), m.lone)
}
