package discovery

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var node = devices.NodeID{0x1a, 0x2b, 0x3c, 0x4d, 5, 6, 7, 8, 9}

func TestTextOfAnAnnouncement(t *testing.T) {
	quiet := Announcement{Class: devices.ClassTV, Node: node, Version: "1.0", Port: 5061, Room: "salon", SIP: "sip:tv@home"}
	open := quiet
	open.Name, open.Room, open.HomeTag, open.API, open.Pair, open.AV = "TV", "salon", "00112233aabbccdd", 8443, true, "as,ar"
	for _, c := range []struct {
		a        Announcement
		instance string
		want     string
	}{
		{quiet, "Hallway-1a2b3c4d", "txtvers=1 id=1a2b3c4d05060708 ver=1.0 class=tv pair=0"},
		{open, "TV", "txtvers=1 id=1a2b3c4d05060708 home=00112233aabbccdd ver=1.0 class=tv pair=1 api=8443 name=TV room=salon sip=sip:tv@home av=as,ar"},
	} {
		if got := strings.Join(c.a.Text(), " "); got != c.want || c.a.Instance() != c.instance || c.a.Host() != "hw-1a2b3c4d.local" {
			t.Errorf("%s\n%s, want\n%s", c.a.Instance(), got, c.want)
		}
	}
	open.Name, open.Room, open.SIP = strings.Repeat("n", 200), strings.Repeat("r", 200), strings.Repeat("s", 300)
	size := 0
	for _, kv := range open.Text() {
		size += 1 + len(kv)
		if k, _, _ := strings.Cut(kv, "="); len(k) > 9 || len(kv) > 255 {
			t.Errorf("%q is too long", kv)
		}
	}
	if size >= 400 {
		t.Errorf("the whole TXT has %d bytes", size)
	}
}

func seen(source, id, kind, instance, addr string, at int, text ...string) Sighting {
	return Sighting{
		Source: source, ID: id, Kind: kind, Instance: instance, Host: "h.local", Text: text,
		Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}, Seen: time.Unix(int64(at), 0),
	}
}

func TestMerge(t *testing.T) {
	const id = "id=1a2b3c4d05060708"
	a := seen("mdns", "x", Type, "Hallway-1a2b3c4d", "10.0.0.1:5061", 1, id, "class=tv", "pair=1")
	b := seen("ssdp", "uuid:1", Type, "Hallway-1a2b3c4d", "10.1.0.1:5061", 2, id, "class=tv")
	c := seen("mdns", "y", "_rtsp._tcp", "Cam", "10.0.0.9:554", 3)
	d := seen("mdns", "z", "_axis-video._tcp", "Cam", "10.0.0.9:80", 4)
	gone := c
	gone.Gone = true
	for _, x := range []struct {
		name string
		in   []Sighting
		ids  []string
	}{
		{"nothing", nil, nil},
		{"one node by two protocols", []Sighting{a, b}, []string{"hallway:1a2b3c4d05060708"}},
		{"two services of one camera", []Sighting{c, d}, []string{"mdns:Cam@h.local"}},
		{"gone", []Sighting{gone, a}, []string{"hallway:1a2b3c4d05060708"}},
	} {
		got := Merge(x.in)
		var ids []string
		for _, th := range got {
			ids = append(ids, th.ID)
		}
		slices.Reverse(x.in)
		if !slices.Equal(ids, x.ids) || !reflect.DeepEqual(got, Merge(x.in)) {
			t.Errorf("%s: %+v", x.name, got)
		}
	}
	n, err := ParseHallway(Merge([]Sighting{a, b})[0])
	if err != nil || n.Class != devices.ClassTV || n.Port != 5061 || len(n.Addrs) != 2 || n.Prefix != [8]byte(node[:8]) {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := ParseHallway(Merge([]Sighting{c})[0]); err == nil {
		t.Error("a camera passed for a Hallway node")
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker()
		cam := seen("mdns", "y", "_rtsp._tcp", "Cam", "10.0.0.9:554", 3)
		tr.Take(cam)
		var got []Change
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = tr.Watch(ctx, func(e Event) { got = append(got, e.Change) })
		}()
		step := func(s Sighting) { synctest.Wait(); tr.Take(s); synctest.Wait() }
		cam.Seen = time.Unix(9, 0)
		step(cam) // only heard again: no event
		cam.Text = []string{"path=/2"}
		step(cam)
		cam.Gone = true
		step(cam)
		cancel()
		<-done
		if !slices.Equal(got, []Change{Added, Updated, Removed}) {
			t.Errorf("%v", got)
		}
	})
}
