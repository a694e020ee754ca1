package discovery

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// seen makes a sighting; the host name of mDNS follows from the address.
func seen(source, id, kind, instance, addr string, at int, text ...string) Sighting {
	a := netip.MustParseAddrPort(addr)
	s := Sighting{
		Source: source, ID: id, Kind: kind, Instance: instance, Text: text, Addrs: []netip.AddrPort{a},
		Seen: time.Unix(int64(at), 0), First: time.Unix(int64(at), 0),
	}
	if source == "mdns" {
		s.Host = strings.ReplaceAll(a.Addr().String(), ".", "-") + ".local"
	}
	return s
}

const (
	u1       = "11111111-1111-1111-1111-111111111111"
	u2       = "22222222-2222-2222-2222-222222222222"
	renderer = "urn:schemas-upnp-org:device:MediaRenderer:1"
	server   = "urn:schemas-upnp-org:device:MediaServer:1"
	onvif    = "dn:NetworkVideoTransmitter"
)

func TestMergingRule(t *testing.T) {
	const id = "id=1a2b3c4d05060708"
	other := seen("mdns", "o", "_rtsp._tcp", "Other", "10.0.0.50:554", 1)
	gone := other
	gone.Gone = true
	for _, x := range []struct {
		name string
		in   []Sighting
		want string // "name is protocols; ...", by ID
	}{
		{"nothing", nil, ""},
		{"gone", []Sighting{gone}, ""},
		{"one node by two protocols", []Sighting{
			seen("mdns", "x", Type, "Hallway-1a2b3c4d", "10.0.0.1:5061", 1, id, "class=tv"),
			seen("ssdp", UUID(node), UPnPType, "Hallway-1a2b3c4d", "10.0.0.1:40001", 2),
		}, "Hallway-1a2b3c4d is Hallway node by mdns ssdp"},
		{"a node and a camera on one host", []Sighting{
			seen("mdns", "x", Type, "TV", "10.0.0.1:5061", 1, id), seen("mdns", "c", "_rtsp._tcp", "TV", "10.0.0.1:554", 2),
		}, "TV is Hallway node by mdns; TV is camera by mdns"},
		{"two services of one camera", []Sighting{
			seen("mdns", "a", "_rtsp._tcp", "Cam", "10.0.0.9:554", 1), seen("mdns", "b", "_axis-video._tcp", "Cam", "10.0.0.9:80", 2), other,
		}, "Cam is camera by mdns; Other is camera by mdns"},
		{"a camera by mDNS and ONVIF", []Sighting{
			seen("mdns", "a", "_rtsp._tcp", "Cam 0011", "10.0.0.9:554", 1), seen("wsd", "urn:uuid:"+u1, onvif, "C1", "10.0.0.9:80", 2), other,
		}, "Cam 0011 is camera by mdns wsd; Other is camera by mdns"},
		{"a recorder with two cameras", []Sighting{
			seen("wsd", "urn:uuid:"+u1, onvif, "Front", "10.0.0.9:80", 1), seen("wsd", "urn:uuid:"+u2, onvif, "Back", "10.0.0.9:80", 1),
			seen("mdns", "a", "_rtsp._tcp", "Recorder", "10.0.0.9:554", 1),
		}, "Recorder is camera by mdns; Front is camera by wsd; Back is camera by wsd"},
		{"renderer and server on one host stay two", []Sighting{
			seen("ssdp", u1, renderer, "Den player", "10.0.0.7:49494", 1), seen("ssdp", u2, server, "Den music", "10.0.0.7:8200", 1),
		}, "Den player is renderer by ssdp; Den music is media server by ssdp"},
		{"also under one name", []Sighting{
			seen("ssdp", u1, renderer, "Rygel", "10.0.0.7:49494", 1), seen("ssdp", u2, server, "Rygel", "10.0.0.7:8200", 1),
		}, "Rygel is renderer by ssdp; Rygel is media server by ssdp"},
		{"a television that is a renderer and casts", []Sighting{
			seen("ssdp", u1, renderer, "Bedroom TV", "10.0.0.7:49494", 1),
			seen("mdns", "g", "_googlecast._tcp", "BRAVIA-4f5a", "10.0.0.7:8009", 2, "id="+strings.ReplaceAll(u2, "-", ""), "fn=Bedroom TV"),
		}, "Bedroom TV is cast, renderer by mdns ssdp"},
		{"cast and UPnP with one UUID", []Sighting{
			seen("ssdp", u1, renderer, "TV", "10.0.0.7:49494", 1),
			seen("mdns", "g", "_googlecast._tcp", "x", "10.1.0.7:8009", 2, "id="+strings.ReplaceAll(u1, "-", ""), "fn=Something"),
		}, "TV is cast, renderer by mdns ssdp"},
		{"one AirPlay speaker", []Sighting{
			seen("mdns", "a", "_airplay._tcp", "Kitchen", "10.0.0.7:7000", 1), seen("mdns", "r", "_raop._tcp", "0011AABBCCDD@Kitchen", "10.0.0.7:7000", 1),
		}, "Kitchen is AirPlay by mdns"},
		{"one telephone, two types", []Sighting{
			seen("mdns", "s", "_sip._udp", "Desk phone", "10.0.0.8:5060", 1), seen("mdns", "u", "_sipuri._udp", "sip:desk@10.0.0.8", "10.0.0.8:5060", 2),
		}, "Desk phone is SIP phone by mdns"},
		{"two accounts of one box", []Sighting{
			seen("mdns", "s", "_sipuri._udp", "sip:a@10.0.0.8", "10.0.0.8:5060", 1), seen("mdns", "u", "_sipuri._udp", "sip:b@10.0.0.8", "10.0.0.8:5060", 2),
		}, "sip:a@10.0.0.8 is SIP phone by mdns; sip:b@10.0.0.8 is SIP phone by mdns"},
		{"the same name on another host", []Sighting{
			seen("mdns", "a", "_rtsp._tcp", "Cam", "10.0.0.8:554", 1), seen("wsd", "urn:uuid:"+u1, onvif, "Cam", "10.0.0.9:80", 2),
		}, "Cam is camera by mdns; Cam is camera by wsd"},
		{"Sonos and the like", []Sighting{func() Sighting {
			s := seen("ssdp", u1, "urn:schemas-upnp-org:device:ZonePlayer:1", "Bath", "10.0.0.7:1400", 1)
			s.Also = []string{renderer, server}
			return s
		}()}, "Bath is renderer, media server by ssdp"},
		{"not our type", []Sighting{seen("ssdp", u1, "urn:evil:device:HomeSession:1", "X", "10.0.0.7:1", 1)}, "X is UPnP device by ssdp"},
	} {
		got := Merge(x.in)
		var words []string
		for _, th := range got {
			words = append(words, th.Name+" is "+th.Is+" by "+strings.Join(th.Protocols, " "))
		}
		sorted, want := slices.Sorted(slices.Values(words)), slices.Sorted(strings.SplitSeq(x.want, "; "))
		if x.want == "" {
			want = nil
		}
		if !slices.Equal(sorted, want) {
			t.Errorf("%s:\n%q, want\n%q", x.name, sorted, want)
		}
		for range 10 {
			rand.Shuffle(len(x.in), func(i, j int) { x.in[i], x.in[j] = x.in[j], x.in[i] })
			if again := Merge(x.in); !reflect.DeepEqual(got, again) {
				t.Errorf("%s: the order matters: %+v and %+v", x.name, got, again)
			}
		}
	}
}

func TestANodeKeepsItsMemberPort(t *testing.T) {
	a := seen("mdns", "x", Type, "Hallway-1a2b3c4d", "10.0.0.1:5061", 1, "id=1a2b3c4d05060708", "class=tv", "pair=1")
	b := seen("ssdp", UUID(node), UPnPType, "Hallway-1a2b3c4d", "10.0.0.1:1234", 2)
	things := Merge([]Sighting{a, b})
	n, err := ParseHallway(things[0])
	if err != nil || n.Class != devices.ClassTV || n.Port != 5061 || len(n.Addrs) != 1 || n.Prefix != [8]byte(node[:8]) || !n.Pair {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := ParseHallway(Merge([]Sighting{b})[0]); err == nil {
		t.Error("SSDP alone gave a member port")
	}
	if p, ok := NodePrefix(b); !ok || p != [8]byte(node[:8]) || len(UUID(node)) != 36 || UUID(node)[14] != '8' {
		t.Errorf("%s: %x", UUID(node), p)
	}
}

func TestTrackerListsForeignThingsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker()
		list := func() []devices.Foreign {
			return tr.Foreign(func(p [8]byte) bool { return p == [8]byte(node[:8]) })
		}
		cam := seen("mdns", "y", "_rtsp._tcp", "Cam", "10.0.0.9:554", 0)
		member := seen("mdns", "m", Type, "Hallway-1a2b3c4d", "10.0.0.1:5061", 0, "id=1a2b3c4d05060708")
		for _, s := range []Sighting{cam, member, seen("ssdp", UUID(node), UPnPType, "Hallway-1a2b3c4d", "10.0.0.1:40001", 0)} {
			if !tr.Take(s) {
				t.Errorf("%+v is no news", s)
			}
			time.Sleep(time.Second)
		}
		if tr.Take(cam) {
			t.Error("the same again is news")
		}
		first := list()
		if len(first) != 1 || first[0].Name != "Cam" || first[0].Is != "camera" {
			t.Fatalf("%+v", first)
		}
		// More is learnt of it: it stays the same entry.
		tr.Take(seen("wsd", "urn:uuid:"+u1, onvif, "C1", "10.0.0.9:80", 5))
		both := list()
		if len(both) != 1 || both[0].ID != first[0].ID || len(both[0].Protocols) != 2 || !both[0].LastSeen.After(first[0].LastSeen) {
			t.Errorf("%+v", both)
		}
		cam.Gone = true
		if !tr.Take(cam) || tr.Take(cam) {
			t.Error("a goodbye is news once")
		}
		if left := list(); len(left) != 1 || len(left[0].Protocols) != 1 {
			t.Errorf("%+v", left)
		}
		if len(tr.Things()) != 2 || len(tr.Neighbours()) != 1 {
			t.Errorf("%+v %+v", tr.Things(), tr.Neighbours())
		}
	})
}
