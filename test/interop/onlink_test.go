package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/peers"
)

// A host on the LAN asks in every way, from addresses that are on the link and from
// addresses that are not; a way back exists for all. Nothing leaves for the latter.
func TestNoPacketLeavesForASourceOffTheLink(t *testing.T) {
	lab := netlab.For(t)
	us, asker := lab.MustHost(t, "we"), lab.MustHost(t, "asker")
	ours, ask := peers.Build(t, "./enginepeer"), peers.Build(t, "./askpeer")
	ip(t, asker, "addr add 192.0.2.66/32 dev eth0")
	ip(t, asker, "-6 addr add 2001:db8::66/128 dev eth0 nodad")
	ip(t, us, "route add 192.0.2.0/24 via "+asker.IPv4)
	ip(t, us, "-6 route add 2001:db8::/64 via "+asker.IPv6)
	counter := peers.Start(t, us, peers.Build(t, "./outpeer"), "eth0")
	counter.Await(t, 5*time.Second, "ready")
	peers.Start(t, us, ours)
	watcher := peers.Start(t, asker, ours, "-quiet")
	watcher.Await(t, 5*time.Second, "Hallway-1a2b3c4d", `"Gone":false`)
	watcher.Stop() // it holds port 5353
	for source, answers := range map[string]bool{asker.IPv4: true, asker.IPv6: true, "192.0.2.66": false, "2001:db8::66": false} {
		out, err := asker.Command(t.Context(), ask, source, "eth0", "hw-1a2b3c4d.local", us.IPv4, us.IPv6).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := strings.Fields(string(out))[0]
		t.Logf("from %s: %s answers", source, got)
		if (got != "0") != answers {
			t.Errorf("a source %s got %s answers; answers are right: %v", source, got, answers)
		}
		if left := strings.Count(counter.Output(), "to "+source+"\n"); (left > 0) != answers {
			t.Errorf("%d packets left for %s; answers are right: %v", left, source, answers)
		}
	}
}

// Interfaces come and go all day where containers run; the system allows a socket 20
// groups and forgets none by itself.
func TestManyInterfacesComeAndGo(t *testing.T) {
	lab := netlab.For(t)
	us, other := lab.MustHost(t, "we"), lab.MustHost(t, "other")
	ours := peers.Build(t, "./enginepeer")
	we := peers.Start(t, us, ours, "-id", "aa")
	we.Await(t, 5*time.Second, "interface used", "iface=eth0")
	for i := range 24 {
		from := we.Len()
		ip(t, us, "link add eth1 type veth peer name eth1 netns "+other.NS)
		for n, h := range []*netlab.Host{us, other} {
			ip(t, h, fmt.Sprintf("addr add 10.78.%d.%d/24 dev eth1", i, n+1))
			ip(t, h, "link set eth1 up")
		}
		we.AwaitSince(t, from, 5*time.Second, "interface used", "iface=eth1")
		if i < 23 {
			ip(t, us, "link del eth1")
			we.AwaitSince(t, from, 5*time.Second, "interface lost", "iface=eth1")
		}
	}
	// Only the last cable is left between them.
	if err := us.Down(); err != nil {
		t.Fatal(err)
	}
	from := we.Len()
	they := peers.Start(t, other, ours, "-id", "bb")
	we.AwaitSince(t, from, 5*time.Second, "Hallway-bb2b3c4d", "10.78.23.2:5061", `"Gone":false`)
	they.Await(t, 5*time.Second, "Hallway-aa2b3c4d", "10.78.23.1:5061", `"Gone":false`)
}
