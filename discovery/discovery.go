// Package discovery owns what is out there: sightings by one protocol each (Source),
// their merging into things with expiry (Tracker), and what this node announces of
// itself. A sighting is an unproven hint; nothing here makes anybody a member.
//
// Sources run in their own goroutine and hand sightings to the Tracker, whose methods may
// be called from any goroutine.
package discovery

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hallway-home/hallway/devices"
)

// Type is Hallway's own DNS-SD service type.
const Type = "_hallway._tcp"

// UPnPType is Hallway's own UPnP device type.
const UPnPType = "urn:hallway-home:device:HomeSession:1"

// ForeignTypes are browsed so that people see what else is in the house.
func ForeignTypes() []string {
	return []string{
		"_sipuri._udp", "_sip._udp", "_rtsp._tcp", "_axis-video._tcp", "_googlecast._tcp",
		"_airplay._tcp", "_raop._tcp", "_hap._tcp", "_matter._tcp", "_esphomelib._tcp",
	}
}

// Sighting is what one protocol says about one thing now; each replaces the one before
// with the same Source and ID.
type Sighting struct {
	Source   string   // "mdns", "ssdp", "wsd"
	ID       string   // stable within the source, e.g. the full DNS-SD instance name
	Gone     bool     // it said goodbye or expired
	Kind     string   // service type
	Also     []string // further types of the same thing, e.g. of devices inside a UPnP device
	Instance string   // what it calls itself
	Host     string
	Addrs    []netip.AddrPort // link-local ones carry their zone
	Text     []string         // key=value, in order
	Seen     time.Time
	First    time.Time // when it came into sight; the Tracker sets it
}

// Source is one wire protocol. Run reports until ctx ends and everything it started
// has ended; report must not block for long.
type Source interface {
	Run(ctx context.Context, report func(Sighting)) error
}

// Announcement is what a node says of itself on the open LAN. Names stay out of it
// unless the owner has opted in.
type Announcement struct {
	Class   devices.Class
	Node    devices.NodeID
	HomeTag string // empty while it belongs to no home
	Version string
	Pair    bool // a pairing or invitation window is open
	Port    uint16
	API     uint16 // HTTPS port, 0 while it is not served
	Name    string // empty unless names on the LAN are on; the rest is said only with it
	Room    string
	SIP     string // the device's SIP URI
	AV      string // flags "as,ar,vs,vr": audio and video, send and receive
	Codecs  string
}

// Instance is the DNS-SD instance name.
func (a Announcement) Instance() string {
	if a.Name != "" {
		return a.Name
	}
	return "Hallway-" + a.Node.Short()
}

// Host is the host name under .local.
func (a Announcement) Host() string { return "hw-" + a.Node.Short() + ".local" }

// Subtype is the DNS-SD subtype of the class.
func (a Announcement) Subtype() string { return "_" + string(a.Class) }

// Text is the TXT record, in the order of the conventions.
func (a Announcement) Text() []string {
	t := []string{"txtvers=1", "id=" + a.Node.Prefix()}
	if a.HomeTag != "" {
		t = append(t, "home="+a.HomeTag)
	}
	pair := "0"
	if a.Pair {
		pair = "1"
	}
	t = append(t, "ver="+a.Version, "class="+string(a.Class), "pair="+pair)
	if a.API != 0 {
		t = append(t, "api="+strconv.Itoa(int(a.API)))
	}
	if a.Name == "" {
		return t
	}
	size := 0
	for _, kv := range t {
		size += 1 + len(kv)
	}
	for _, kv := range [][2]string{{"name", a.Name}, {"room", a.Room}, {"sip", a.SIP}, {"av", a.AV}, {"cod", a.Codecs}} {
		n := 1 + len(kv[0]) + 1 + len(kv[1])
		if kv[1] == "" || n > maxString || size+n > maxText {
			continue // a long name is in the instance anyway
		}
		t, size = append(t, kv[0]+"="+kv[1]), size+n
	}
	return t
}

const (
	// maxText keeps an announcement in one packet (conventions: under 400 bytes).
	maxText = 399
	// maxString is one string of a TXT record with its length byte (RFC 6763 section 6.1).
	maxString = 256
)

// Neighbour is a sighting of another Hallway node, still unproven.
type Neighbour struct {
	Prefix  [8]byte // first half of the Node-ID it claims
	HomeTag string
	Class   devices.Class
	Version string
	Pair    bool
	Port    uint16 // of the member TLS port, 0 while no address is known
	Addrs   []netip.AddrPort
}

// ParseHallway reads what a Hallway node says of itself from the merged thing.
func ParseHallway(t Thing) (Neighbour, error) {
	if !slices.Contains(t.Kinds, Type) {
		return Neighbour{}, fmt.Errorf("%s is no Hallway node that mDNS shows", t.ID)
	}
	return ParseNeighbour(Sighting{ID: t.ID, Kind: Type, Addrs: t.Addrs, Text: t.Text})
}

// ParseNeighbour reads the TXT record of a node.
func ParseNeighbour(s Sighting) (Neighbour, error) {
	n := Neighbour{Addrs: s.Addrs}
	if len(s.Addrs) > 0 {
		n.Port = s.Addrs[0].Port()
	}
	if s.Kind != Type {
		return n, fmt.Errorf("%s is not %s", s.Kind, Type)
	}
	for _, kv := range s.Text {
		k, v, _ := strings.Cut(kv, "=")
		switch strings.ToLower(k) {
		case "id":
			u, err := strconv.ParseUint(v, 16, 64)
			if err != nil || len(v) != 16 {
				return n, fmt.Errorf("id=%q is not 16 hexadecimal digits", v)
			}
			for i := range n.Prefix {
				n.Prefix[i] = byte(u >> (56 - 8*i))
			}
		case "home":
			n.HomeTag = v
		case "class":
			n.Class = devices.Class(v)
		case "ver":
			n.Version = v
		case "pair":
			n.Pair = v == "1"
		}
	}
	if n.Prefix == [8]byte{} {
		return n, fmt.Errorf("%s names no id", s.ID)
	}
	return n, nil
}

// MaxLine is how many characters of a name from the network are kept.
const MaxLine = 64

// OneLine makes text from the network fit for one line of a table.
func OneLine(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
	if utf8.RuneCountInString(s) > MaxLine {
		s = strings.TrimSpace(string([]rune(s)[:MaxLine]))
	}
	return s
}

// UUID names a node in UPnP: version 8 (RFC 9562 section 5.8) with the same first half of
// the Node-ID that mDNS shows, and nothing else, so that both are seen to be of one node.
func UUID(id devices.NodeID) string {
	b := [16]byte{6: 0x80, 8: 0x80}
	copy(b[:6], id[:6])
	copy(b[9:11], id[6:8])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// NodePrefix is the first half of the Node-ID that a sighting of a Hallway node claims,
// by whichever protocol.
func NodePrefix(s Sighting) (prefix [8]byte, ok bool) {
	if s.Kind == Type {
		n, err := ParseNeighbour(s)
		return n.Prefix, err == nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s.ID, "-", ""))
	if s.Kind != UPnPType || err != nil || len(b) != 16 {
		return prefix, false
	}
	copy(prefix[:6], b[:6])
	copy(prefix[6:], b[9:11])
	return prefix, true
}
