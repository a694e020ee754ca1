package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestForeignThingsAreAnAlignedTable(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	a.foreignTable([]devices.Foreign{
		{Name: "Den player", Is: "renderer", Protocols: []string{"ssdp"}, Addrs: []netip.AddrPort{netip.MustParseAddrPort("[fd00::7]:49494"), netip.MustParseAddrPort("10.0.0.7:49494")}, LastSeen: time.Now()},
		{Name: "Garden", Is: "camera", Protocols: []string{"mdns", "wsd"}, LastSeen: time.Now().Add(-90 * time.Minute)},
	})
	want := strings.Join([]string{
		"", "Foreign: in sight, not trusted",
		"CALLED      IS        SEEN BY   ADDRESS         LAST SEEN",
		"Den player  renderer  ssdp      10.0.0.7:49494  just now",
		"Garden      camera    mdns wsd  -               1 h ago", "",
	}, "\n")
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	for d, want := range map[time.Duration]string{59 * time.Second: "just now", 61 * time.Second: "1 min ago", 47 * time.Hour: "47 h ago", 72 * time.Hour: "3 days ago"} {
		if got := ago(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}
