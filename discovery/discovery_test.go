package discovery

import (
	"strings"
	"testing"

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
