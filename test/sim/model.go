package sim

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// model knows what was really done, and what follows from it. It shares no rule with the
// code under test: it thinks in sets ("who knew what"), not in a fold.
type model struct {
	keys    map[devices.NodeID]*ecdsa.PublicKey
	first   devices.NodeID                // the first owner; the program never removes it
	intents map[string]bool               // what owners asked for
	said    map[statement]map[string]bool // every body that a writer published
	want    map[statement]map[string]bool // those that may be its newest; "" is none
	entries map[devices.NodeID][]string   // of each writer's log, those that cannot be lost, in order
	edits   map[trust.Hash]*edit          // what is in any log, by its content
	records map[[32]byte]records.Record   // records whose signature was checked
}

// statement is what a later record of the writer replaces.
type statement struct {
	writer devices.NodeID
	kind   string
}

// edit is one change of the home, and all that its author knew.
type edit struct {
	trust.Edit
	knew map[trust.Hash]bool
}

func newModel(keys map[devices.NodeID]*ecdsa.PublicKey, first devices.NodeID) *model {
	return &model{
		keys: keys, first: first, intents: map[string]bool{}, said: map[statement]map[string]bool{}, want: map[statement]map[string]bool{},
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
	e := &edit{knew: map[trust.Hash]bool{}}
	if err := decoding.Unmarshal(s.Raw, &e.Edit); err != nil {
		return err
	}
	for _, p := range e.Parents {
		parent := m.edits[p]
		if parent == nil {
			return errors.New("an edit is stored without its parent")
		}
		e.knew[p] = true
		for a := range parent.knew {
			e.knew[a] = true
		}
	}
	pub := m.keys[e.Signer]
	if e.Op == trust.OpGenesis {
		root, err := devices.ParseCompressedKey(e.Root)
		if err != nil || keyID(e.Root) != devices.NodeID(e.Home) {
			return errors.New("the home is not named after its root key")
		}
		pub = root
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

// subject is the node that an edit is about.
func (e *edit) subject() devices.NodeID {
	if len(e.Key) > 0 {
		return keyID(e.Key)
	}
	return e.Node
}

// expect is what a log with exactly these edits must fold to.
type expect struct {
	in, out map[devices.NodeID]bool            // must belong, must be removed
	never   map[devices.NodeID]bool            // only somebody admitted them who no longer might
	names   map[devices.NodeID]map[string]bool // one of these is the device's name
	rooms   map[string]bool                    // by name: must exist (true), must not (false)
}

// expects thinks about a set of edits. Only node 0 makes owners, so the only question is
// what a removed second owner did before node 0, when removing it, knew.
func (m *model) expects(held []trust.Hash) expect {
	x := expect{in: map[devices.NodeID]bool{}, out: map[devices.NodeID]bool{}, never: map[devices.NodeID]bool{}, names: map[devices.NodeID]map[string]bool{}, rooms: map[string]bool{}}
	var ends []*edit // removals by node 0
	for _, h := range held {
		if e := m.edits[h]; e.Op == trust.OpRemove && e.Signer == m.first {
			ends = append(ends, e)
		}
	}
	counts := map[trust.Hash]*edit{}
	for _, h := range held {
		e, ok := m.edits[h], true
		for _, r := range ends {
			ok = ok && (r.Node != e.Signer || r.knew[h])
		}
		if ok {
			counts[h] = e
		}
	}
	for _, h := range held {
		e, ok := m.edits[h], counts[h] != nil
		switch {
		case e.Op == trust.OpName && e.Kind == trust.SubjectRoom:
			x.rooms[e.Name] = ok
		case len(e.Key) > 0 && ok:
			x.in[e.subject()] = true
		case len(e.Key) > 0:
			x.never[e.subject()] = true
		}
	}
	for id := range x.in {
		delete(x.never, id)
	}
	m.removals(counts, &x)
	for id := range x.in {
		x.names[id] = newestNames(counts, id)
	}
	return x
}

// removals takes out who was removed: for good if the remover knew an admission that
// counts; a removal that knew none may or may not have hit, and nothing is expected.
func (m *model) removals(counts map[trust.Hash]*edit, x *expect) {
	for _, r := range counts {
		if r.Op != trust.OpRemove {
			continue
		}
		knows, owner := false, false
		for h, a := range counts {
			if len(a.Key) > 0 && a.subject() == r.Node {
				knows = knows || r.knew[h]
				owner = owner || a.Role == devices.RoleOwner
			}
		}
		switch {
		case owner && r.Signer != m.first: // owners are removed by node 0 alone
		case knows:
			x.out[r.Node] = true
		default:
			x.names[r.Node] = nil
			delete(x.in, r.Node)
		}
	}
	for id := range x.out {
		delete(x.in, id)
	}
}

// newestNames are the names that nobody gave a later one knowing of them. A name given by
// somebody who knew no admission that counts may have had no effect.
func newestNames(counts map[trust.Hash]*edit, id devices.NodeID) map[string]bool {
	names, doubt := map[trust.Hash]string{}, map[trust.Hash]string{}
	for h, e := range counts {
		switch {
		case len(e.Key) > 0 && e.subject() == id:
			names[h] = e.Name
		case e.Op == trust.OpName && e.Node == id:
			doubt[h] = e.Name
			for a := range e.knew {
				if c := counts[a]; c != nil && len(c.Key) > 0 && c.subject() == id {
					names[h] = e.Name
				}
			}
		}
	}
	out := map[string]bool{}
	for h, name := range names {
		older := false
		for later := range names {
			older = older || later != h && counts[later].knew[h]
		}
		if !older {
			out[name] = true
		}
	}
	for _, name := range doubt {
		if len(names) < len(doubt) {
			out[name] = true
		}
	}
	return out
}
