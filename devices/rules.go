package devices

import (
	"slices"
	"strings"
	"time"
)

// Right is something that one member may be allowed to do to another.
type Right string

// The rights that rules speak of.
const (
	RightCall   Right = "call"   // make it ring
	RightView   Right = "view"   // see its camera without ringing
	RightDropIn Right = "dropin" // be connected without anybody answering
	RightDoor   Right = "door"   // open its door
)

// Rights lists all of them.
func Rights() []Right { return []Right{RightCall, RightView, RightDropIn, RightDoor} }

// Everybody stands for all members, as a rule's subject and among those it names.
const Everybody = "all"

// Rule says who has a right on a device, room or person, or on everything in the home.
type Rule struct {
	Subject string   `json:"subject"` // slug, or "all"
	Right   Right    `json:"right"`
	Who     []string `json:"who"`             // slugs of devices, rooms, groups, persons, or "all"; none: nobody
	Hours   string   `json:"hours,omitempty"` // "07:00-22:00": the right exists only then; empty: always
}

// RuleKey names a rule: there is one for each subject and right.
type RuleKey struct {
	Subject string
	Right   Right
}

// Allows decides whether caller has a right on callee. The rule of the device itself
// counts; without one those of its persons, then that of its room, then that for
// everything. Without any rule members may call and view each other, and nobody may drop in
// or open doors. now is home time in the home's zone; while it is not known (ok is
// false) a rule that is bound to hours gives nobody anything.
func (r *Roster) Allows(right Right, caller, callee NodeID, now time.Time, ok bool) bool {
	if !r.Knows(caller) || !r.Has(callee) {
		return false
	}
	return r.allows(right, caller, r.subjectsOf(callee), now, ok)
}

// AllowsToPerson is Allows for the phones of a person: the person's own rule counts, then
// that of the room where they are for good, then that for everything.
func (r *Roster) AllowsToPerson(right Right, caller NodeID, slug string, now time.Time, ok bool) bool {
	if !r.Knows(caller) {
		return false
	}
	p, exists := r.Persons[slug]
	return exists && r.allows(right, caller, [][]string{{slug}, {p.Room}, {Everybody}}, now, ok)
}

// Knows reports whether a key belongs to the home now: a member's, or that of a person's phone.
func (r *Roster) Knows(id NodeID) bool { return r.Has(id) || r.IsPhone(id) }

// IsPhone reports whether a key is that of a person's phone.
func (r *Roster) IsPhone(id NodeID) bool {
	if r == nil {
		return false
	}
	for _, p := range r.Persons {
		if slices.Contains(p.Nodes, id) {
			return true
		}
	}
	return false
}

// AllowsOn is Allows for a foreign device of that slug: its own rule counts, then that of
// its room, then that for everything.
func (r *Roster) AllowsOn(right Right, caller NodeID, slug string, now time.Time, ok bool) bool {
	if r == nil {
		return false
	}
	a, adopted := r.Adopted[slug]
	return adopted && r.Knows(caller) && r.allows(right, caller, [][]string{{slug}, {a.Room}, {Everybody}}, now, ok)
}

func (r *Roster) allows(right Right, caller NodeID, levels [][]string, now time.Time, ok bool) bool {
	for _, level := range levels {
		found, allowed := false, true
		for _, subject := range level {
			if rule, exists := r.Rules[RuleKey{subject, right}]; exists {
				found = true
				allowed = allowed && r.named(rule.Who, caller) && within(rule.Hours, now, ok)
			}
		}
		if found {
			return allowed
		}
	}
	return right == RightCall || right == RightView
}

// subjectsOf lists what a rule about a device may be about, the closest first. Persons
// who share a phone are of one level: all of them must agree.
func (r *Roster) subjectsOf(id NodeID) [][]string {
	m := r.Members[id]
	var persons []string
	for slug, p := range r.Persons {
		if slices.Contains(p.Nodes, id) {
			persons = append(persons, slug)
		}
	}
	return [][]string{{m.Slug}, persons, {m.Room}, {Everybody}}
}

// named reports whether a device is meant by a list of names.
func (r *Roster) named(who []string, id NodeID) bool { return r.namedWithin(who, id, maxGroupDepth) }

func (r *Roster) namedWithin(who []string, id NodeID, depth int) bool {
	m := r.Members[id]
	at := r.Persons[r.Phones[id].Person].Room
	return slices.ContainsFunc(who, func(slug string) bool {
		if slug == Everybody || slug == m.Slug || slug != "" && (slug == m.Room || slug == at) || slices.Contains(r.Persons[slug].Nodes, id) {
			return true
		}
		g, ok := r.Groups[slug]
		return ok && depth > 0 && r.namedWithin(g.Members, id, depth-1)
	})
}

// within reports whether a time of day lies in hours such as "07:00-22:00", or
// "22:00-07:00" over midnight.
func within(hours string, now time.Time, known bool) bool {
	if hours == "" {
		return true
	}
	from, to, ok := ParseHours(hours)
	if !ok || !known {
		return false
	}
	at := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute
	if from <= to {
		return from <= at && at < to
	}
	return at >= from || at < to
}

// ParseHours reads "HH:MM-HH:MM" as two times since midnight.
func ParseHours(s string) (from, to time.Duration, ok bool) {
	a, b, ok := strings.Cut(s, "-")
	x, err1 := time.Parse("15:04", a)
	y, err2 := time.Parse("15:04", b)
	if !ok || err1 != nil || err2 != nil || len(s) != len("07:00-22:00") {
		return 0, 0, false
	}
	midnight := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	return x.Sub(midnight), y.Sub(midnight), true
}
