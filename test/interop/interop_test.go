// Package interop shows that other people's mDNS software and ours see each other, each
// on a host of its own in a network namespace, or side by side on one.
package interop

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/peers"
)

func TestZeroconfAndWeSeeEachOther(t *testing.T) {
	lab := netlab.For(t)
	ours, theirs := peers.Build(t, "./enginepeer"), peers.Build(t, "./zeroconfpeer")
	we := peers.Start(t, lab.MustHost(t, "we"), ours)
	they := peers.Start(t, lab.MustHost(t, "they"), theirs)
	d := we.Await(t, 5*time.Second, `"Porch camera"`, `"_rtsp._tcp"`, ":8554", "path=/live", `"Gone":false`)
	t.Logf("we saw zeroconf's service after %v", d)
	they.Await(t, 5*time.Second, "Hallway-1a2b3c4d", "5061", "txtvers=1 id=1a2b3c4d00000000", "class=tv")
	they.Stop()
	t.Logf("its goodbye removed it after %v", we.Await(t, 3*time.Second, `"Porch camera"`, `"Gone":true`))
}

func TestLoopbackWorksWhenAskedFor(t *testing.T) {
	lab := netlab.For(t)
	ours, h := peers.Build(t, "./enginepeer"), lab.MustHost(t, "one")
	a := peers.Start(t, h, ours, "-id", "aa", "lo")
	b := peers.Start(t, h, ours, "-id", "bb", "lo")
	a.Await(t, 5*time.Second, "Hallway-bb2b3c4d", "127.0.0.1:5061", `"Gone":false`)
	b.Await(t, 5*time.Second, "Hallway-aa2b3c4d", "127.0.0.1:5061", `"Gone":false`)
	b.Stop()
	a.Await(t, 3*time.Second, "Hallway-bb2b3c4d", `"Gone":true`)
}

func TestOneFamilyOnly(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	for _, c := range []struct {
		name  string
		flush []string // run on each host first
		want  func(h *netlab.Host) []string
	}{
		{"IPv6", []string{"-4 addr flush dev eth0"}, func(h *netlab.Host) []string { return []string{"[fe80::", "%eth0]:5061", "[" + h.IPv6 + "]:5061"} }},
		{"link-local IPv6", []string{"-4 addr flush dev eth0", "-6 addr flush dev eth0 scope global"}, func(*netlab.Host) []string { return []string{"[fe80::", "%eth0]:5061"} }},
		{"IPv4", []string{"-6 addr flush dev eth0"}, func(h *netlab.Host) []string { return []string{`"Addrs":["` + h.IPv4 + `:5061"]`} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.For(t)
			one, two, third := lab.MustHost(t, "one"), lab.MustHost(t, "two"), lab.MustHost(t, "avahi")
			for _, h := range []*netlab.Host{one, two, third} {
				for _, args := range c.flush {
					ip(t, h, args)
				}
			}
			a := peers.Start(t, one, ours, "-id", "aa")
			peers.Start(t, two, ours, "-id", "bb")
			a.Await(t, 5*time.Second, append(c.want(two), "Hallway-bb2b3c4d")...)
			avahi := peers.Avahi(t, third)
			avahi.Say(t, "avahi-browse -rp _hallway._tcp < /dev/null &")
			avahi.Await(t, 3*time.Second, "=;eth0;", "Hallway-aa2b3c4d", ";5061;")
			avahi.Publish(t, "pub", "Hall camera", "_rtsp._tcp", "554")
			a.Await(t, 5*time.Second, "Hall camera", ":554", `"Gone":false`)
		})
	}
}
