package trust

import (
	"bytes"
	"cmp"
	"container/heap"
	"crypto/ecdsa"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// Void is an edit that was folded without effect, and why.
type Void struct {
	Hash   Hash
	Reason string
}

// Fold makes the roster from a set of edits, in whatever order they come: parents
// before children; among concurrent edits those signed by the root first, then
// removals, then the lower hash. An edit whose signer does not belong at that point is
// void. Fold trusts no signature: each is checked here against the key that the roster
// itself names at that point. It returns nil without a valid genesis.
func Fold(edits []SignedEdit) (*devices.Roster, []Void) {
	f := newFolder(edits)
	for f.ready.Len() > 0 {
		f.apply(heap.Pop(&f.ready).(*entry))
	}
	if f.r == nil {
		return nil, f.voids
	}
	f.r.Epoch = uint64(f.folded)
	f.r.Heads = f.heads()
	return f.r, f.voids
}

type entry struct {
	hash   Hash
	signed SignedEdit
	edit   Edit
	wait   int // parents not folded yet
	rank   int // lowest rank of itself and its descendants
}

type folder struct {
	r       *devices.Roster
	root    *ecdsa.PublicKey
	entries map[Hash]*entry
	kids    map[Hash][]*entry
	ready   queue
	folded  int
	voids   []Void
	slugs   map[string]bool
}

func newFolder(edits []SignedEdit) *folder {
	f := &folder{entries: map[Hash]*entry{}, kids: map[Hash][]*entry{}, slugs: map[string]bool{}}
	for _, s := range edits {
		e, err := decode(s)
		if err != nil {
			f.voids = append(f.voids, Void{s.Hash(), err.Error()})
			continue
		}
		f.entries[s.Hash()] = &entry{hash: s.Hash(), signed: s, edit: e}
	}
	for _, en := range f.entries {
		en.wait = len(en.edit.Parents)
		for _, p := range en.edit.Parents {
			f.kids[p] = append(f.kids[p], en)
		}
		if en.wait == 0 {
			f.ready = append(f.ready, en)
		}
	}
	seen := map[*entry]bool{}
	for _, en := range f.entries {
		f.rankOf(en, seen)
	}
	heap.Init(&f.ready)
	return f
}

// rankOf gives an edit the lowest rank among itself and its descendants: whatever
// leads to a removal is folded before what is concurrent with it, so that a removed
// owner gains nothing by building on old edits.
func (f *folder) rankOf(en *entry, seen map[*entry]bool) int {
	if seen[en] {
		return en.rank
	}
	seen[en] = true
	en.rank = rank(en)
	for _, k := range f.kids[en.hash] {
		en.rank = min(en.rank, f.rankOf(k, seen))
	}
	return en.rank
}

func (f *folder) apply(en *entry) {
	f.folded++
	if reason := f.effect(en); reason != "" {
		f.voids = append(f.voids, Void{en.hash, reason})
	}
	for _, k := range f.kids[en.hash] {
		if k.wait--; k.wait == 0 {
			heap.Push(&f.ready, k)
		}
	}
}

// effect changes the roster, or says why it does not.
func (f *folder) effect(en *entry) string {
	e := en.edit
	if e.Op == OpGenesis {
		return f.genesis(en)
	}
	if f.r == nil || e.Home != f.r.Home {
		return ErrEditHome.Error()
	}
	if reason := f.signedByOwner(en); reason != "" {
		return reason
	}
	switch e.Op {
	case OpAdmit:
		return f.admit(e)
	case OpRemove:
		return f.remove(e)
	case OpName:
		return f.name(e)
	}
	return "this version does not know the operation " + strconv.Quote(string(e.Op))
}

func (f *folder) signedByOwner(en *entry) string {
	pub := f.root
	if en.edit.Signer != devices.NodeID(f.r.Home) {
		m, ok := f.r.Members[en.edit.Signer]
		if !ok || m.Role != devices.RoleOwner {
			return "its signer is no owner at this point"
		}
		key, err := devices.ParseCompressedKey(m.Key)
		if err != nil {
			return err.Error()
		}
		pub = key
	}
	if !VerifyRaw(pub, en.signed.Raw, en.signed.Sig) { // check: roster signature
		return ErrEditSignature.Error()
	}
	return ""
}

func (f *folder) genesis(en *entry) string {
	e := en.edit
	root, err := devices.ParseCompressedKey(e.Root)
	if f.r != nil || err != nil || devices.HomeIDOf(root) != e.Home {
		return "it is not the first edit of this home"
	}
	if !VerifyRaw(root, en.signed.Raw, en.signed.Sig) {
		return ErrEditSignature.Error()
	}
	f.root = root
	f.r = &devices.Roster{
		Home: e.Home, Name: e.HomeName, HomeKey: e.HomeKey,
		Members: map[devices.NodeID]devices.Member{}, Removed: map[devices.NodeID]bool{},
		Rooms: map[string]devices.Room{}, Groups: map[string]devices.Group{}, Persons: map[string]devices.Person{},
	}
	e.Role = devices.RoleOwner
	return f.admit(e)
}

func (f *folder) admit(e Edit) string {
	pub, err := devices.ParseCompressedKey(e.Key)
	if err != nil {
		return err.Error()
	}
	id := devices.NodeIDOf(pub)
	switch {
	case f.r.Removed[id]:
		return "this key was removed and never returns"
	case f.r.Has(id):
		return "this key belongs already"
	case len(f.r.Members) >= MaxMembers:
		return ErrFull.Error()
	case e.Role != devices.RoleOwner && e.Role != devices.RoleDevice:
		return "unknown role"
	}
	room := f.room(e.Room)
	f.r.Members[id] = devices.Member{
		Node: id, Key: e.Key, Role: e.Role, Name: e.Name, Room: room, Class: e.Class, Slug: f.newSlug(e.Name),
	}
	return ""
}

// room finds a room by its name or slug, or makes it.
func (f *folder) room(name string) string {
	if strings.TrimSpace(name) == "" {
		return ""
	}
	want := Slugify(name)
	for _, slug := range slices.Sorted(maps.Keys(f.r.Rooms)) {
		if slug == name || slug == want || Slugify(f.r.Rooms[slug].Name) == want {
			return slug
		}
	}
	slug := f.newSlug(name)
	f.r.Rooms[slug] = devices.Room{Slug: slug, Name: name}
	return slug
}

func (f *folder) remove(e Edit) string {
	m, ok := f.r.Members[e.Node]
	if !ok {
		return "nobody with this key belongs"
	}
	if m.Role == devices.RoleOwner && f.owners() == 1 {
		return ErrLastOwner.Error()
	}
	delete(f.r.Members, e.Node)
	f.r.Removed[e.Node] = true
	if len(e.HomeKey) == 32 {
		f.r.HomeKey = e.HomeKey
	}
	return ""
}

func (f *folder) owners() int { return owners(f.r) }
func (f *folder) name(e Edit) string {
	if e.Kind == SubjectDevice {
		m, ok := f.r.Members[e.Node]
		if !ok {
			return "nobody with this key belongs"
		}
		m.Name = cmp.Or(e.Name, m.Name) // a rename keeps the slug
		if e.Room != "" {
			m.Room = f.room(e.Room)
		}
		f.r.Members[e.Node] = m
		return ""
	}
	slug := e.Slug
	if slug == "" {
		slug = f.newSlug(e.Name)
	}
	switch e.Kind {
	case SubjectRoom:
		return put(f.r.Rooms, e.Slug, slug, devices.Room{Slug: slug, Name: e.Name})
	case SubjectGroup:
		return put(f.r.Groups, e.Slug, slug, devices.Group{Slug: slug, Name: e.Name, Members: e.Members})
	case SubjectPerson:
		return put(f.r.Persons, e.Slug, slug, devices.Person{Slug: slug, Name: e.Name, Role: e.Role, Nodes: e.Nodes})
	}
	return "unknown kind of name"
}

// put stores a new name, or changes the one that the edit names.
func put[T any](m map[string]T, named, slug string, v T) string {
	if _, ok := m[slug]; named != "" && !ok {
		return "nothing of that kind is called " + named
	}
	m[slug] = v
	return ""
}

func (f *folder) heads() []Hash {
	var out []Hash
	for h, en := range f.entries {
		folded := en.wait == 0
		leaf := !slices.ContainsFunc(f.kids[h], func(k *entry) bool { return k.wait == 0 })
		if folded && leaf {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// newSlug takes a free slug in the one name space of the home: taken names get "-2".
func (f *folder) newSlug(name string) string {
	base := Slugify(name)
	slug := base
	for i := 2; f.slugs[slug] || reserved(slug); i++ {
		slug = base + "-" + strconv.Itoa(i)
	}
	f.slugs[slug] = true
	return slug
}

func reserved(slug string) bool {
	return slug == "all" || slug == "door" || slug == "hallway" || slug == "localhost"
}

// Slugify makes the name part of a SIP URI from a display name: lower-case letters,
// digits and hyphens; what has no such form becomes "device".
func Slugify(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case fold[r] != "":
			b.WriteString(fold[r])
		case r == '\'', r == '’': // "Maria's" reads "marias"
		default:
			if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
				b.WriteByte('-')
			}
		}
		if b.Len() >= 40 {
			break
		}
	}
	if s := strings.Trim(b.String(), "-"); s != "" {
		return s
	}
	return "device"
}

// fold spells the letters that European names bring.
var fold = map[rune]string{
	'ä': "ae", 'ö': "oe", 'ü': "ue", 'ß': "ss", 'é': "e", 'è': "e", 'ê': "e", 'ë': "e", 'á': "a", 'à': "a", 'â': "a",
	'å': "a", 'ã': "a", 'ç': "c", 'í': "i", 'ì': "i", 'î': "i", 'ï': "i", 'ñ': "n", 'ó': "o", 'ò': "o", 'ô': "o",
	'õ': "o", 'ø': "o", 'æ': "ae", 'ú': "u", 'ù': "u", 'û': "u", 'ý': "y", 'š': "s", 'ž': "z", 'č': "c", 'ř': "r", 'ł': "l",
}

// queue orders edits that are ready together.
type queue []*entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if c := cmp.Compare(a.rank, b.rank); c != 0 {
		return c < 0
	}
	return bytes.Compare(a.hash[:], b.hash[:]) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is part of heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*entry)) }

// Pop is part of heap.Interface.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func rank(e *entry) int {
	switch {
	case e.edit.Signer == devices.NodeID(e.edit.Home):
		return 0
	case e.edit.Op == OpRemove:
		return 1
	}
	return 2
}
