package devices

// Presence says whether somebody would be disturbed by a call, in the words of RFC 3863 and RFC 4480: away is "closed",
// the others are "open" with the activity "busy" or without one. It is what people read before they call; who is
// called decides when it rings.
type Presence string

// The presences, the most welcome first.
const (
	Free Presence = "free"
	Busy Presence = "busy" // in a call
	DND  Presence = "dnd"  // does not want to be disturbed: a call is refused
	Away Presence = "away" // not connected
)

// presenceOf is that of a device with its status and what it says itself.
func presenceOf(s Status, said Presence) Presence {
	switch {
	case s != Reachable:
		return Away
	case said == Busy || said == DND:
		return said
	}
	return Free
}

// presence of a phone, as it and its node say.
func (b Binding) presence() Presence {
	switch {
	case b.Quiet:
		return DND
	case b.Busy:
		return Busy
	}
	return Free
}

// best is the more welcome of two; the zero value is none.
func best(a, b Presence) Presence {
	for _, p := range []Presence{Free, Busy, DND, Away} {
		if a == p || b == p {
			return p
		}
	}
	return Away
}

// Presence is that of everything behind a name together: a person is free when one of their phones is.
func (s *Snapshot) Presence(slug string) Presence {
	p := Away
	for _, d := range s.byAOR[slug].Devices {
		p = best(p, d.Presence)
	}
	return p
}
