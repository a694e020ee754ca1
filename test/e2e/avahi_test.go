package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/peers"
)

// joinHome starts a node with a join token of the owner; its name may be taken.
func (n *node) joinHome(owner *node, slug string) {
	n.t.Helper()
	n.start("--join", ask[struct{ Token string }](owner, "invite").Token)
	owner.eventually(15*time.Second, slug+" joins", func() bool { return owner.sees(slug) == "reachable" })
	n.eventually(10*time.Second, "it sees the owner", func() bool { return n.sees(slugOf(owner.name)) == "reachable" })
}

// lanNames lists the instance names of Hallway nodes that avahi-browse shows now.
func lanNames(t *testing.T, avahi *peers.Program) []string {
	t.Helper()
	from := avahi.Len()
	avahi.Say(t, "avahi-browse -rpt _hallway._tcp < /dev/null; echo listed")
	avahi.AwaitSince(t, from, 5*time.Second, "listed")
	var out []string
	for line := range strings.SplitSeq(avahi.Output()[from:], "\n") {
		if f := strings.Split(line, ";"); f[0] == "=" && len(f) > 3 && f[2] == "IPv4" {
			out = append(out, unescapeAvahi(f[3]))
		}
	}
	slices.Sort(out)
	return out
}

func unescapeAvahi(s string) string {
	return strings.NewReplacer(`\032`, " ", `\040`, "(", `\041`, ")", `\035`, "#").Replace(s)
}

// Two devices named "TV": names and URIs end distinct, and nobody is asked. With names
// shown on the LAN, a conflict with a foreign device renames the later one and never
// evicts who was first.
func TestA3_TwoDevicesNamedTV(t *testing.T) {
	l := newLab(t)
	one := newNode(t, l, "TV", "tv", "Living room", "--names-on-lan").start().found()
	two := newNode(t, l, "TV", "tv", "Bedroom", "--names-on-lan")
	two.joinHome(one, "tv-2")
	for _, n := range []*node{one, two} {
		uris := map[string]bool{}
		for _, d := range ask[struct {
			Devices []struct{ Slug, AOR string }
		}](n, "devices").Devices {
			uris[d.AOR] = true
			if !strings.HasPrefix(d.AOR, "sip:"+d.Slug+"@") {
				t.Errorf("%s is called %s", d.Slug, d.AOR)
			}
		}
		if len(uris) != 2 {
			t.Errorf("%s has the URIs %v, want two", n.host.NS, uris)
		}
	}
	h, err := l.Host("avahi")
	if err != nil {
		t.Fatal(err)
	}
	avahi := peers.Avahi(t, h)
	avahi.Say(t, "avahi-browse -p _hallway._tcp < /dev/null &")
	one.eventually(5*time.Second, "the LAN shows TV and TV (2)", func() bool {
		return slices.Equal(lanNames(t, avahi), []string{"TV", "TV (2)"})
	})

	// A foreign device comes third.
	avahi.Publish(t, "third", "TV", "_hallway._tcp", "5999", "foreign=1")
	avahi.Await(t, 5*time.Second, "Established under name 'TV #2'")
	for _, n := range []*node{one, two} {
		n.eventually(5*time.Second, "it lists the foreign TV", func() bool { return n.hasForeign("TV #2", "_hallway._tcp") })
	}
	one.eventually(5*time.Second, "the LAN shows all three", func() bool {
		return slices.Equal(lanNames(t, avahi), []string{"TV", "TV #2", "TV (2)"})
	})

	// A foreign device was first.
	avahi.Publish(t, "first", "Cam", "_hallway._tcp", "5998", "foreign=1")
	avahi.Await(t, 5*time.Second, "Established under name 'Cam'")
	cam := newNode(t, l, "Cam", "camera", "Garden", "--names-on-lan")
	cam.joinHome(one, "cam")
	want := []string{"Cam", "Cam (2)", "TV", "TV #2", "TV (2)"}
	one.eventually(5*time.Second, "the LAN shows the camera under the next name", func() bool { return slices.Equal(lanNames(t, avahi), want) })
	for _, name := range []string{"TV", "Cam"} {
		if peers.HasLine(avahi.Output(), "-;", ";IPv4;"+name+";") {
			t.Errorf("%s was evicted for a moment:\n%s", name, avahi.Output())
		}
	}
	if peers.HasLine(avahi.Output(), "'Cam #2'") {
		t.Error("avahi was first and had to rename its service")
	}
}

func (n *node) hasForeign(name, kind string) bool {
	return slices.ContainsFunc(ask[devices](n, "devices", "--all").Foreign, func(f foreign) bool {
		return f.Name == name && slices.Contains(f.Kinds, kind)
	})
}

// What other people's mDNS software shows of a home of agents, and what the agents list
// of it: right data within 2 s of an agent's start, and the name of the home's app.
func TestA1_AvahiShowsEveryAgent(t *testing.T) {
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	cam := newNode(t, l, "Cam", "camera", "Garden")
	panel := newNode(t, l, "Panel", "panel", "Kitchen")
	tv.invite(cam, panel)
	nodes := map[*node]string{tv: "tv", cam: "camera", panel: "panel"}
	h, err := l.Host("avahi")
	if err != nil {
		t.Fatal(err)
	}
	avahi := peers.Avahi(t, h)
	avahi.Say(t, "avahi-browse -rp _hallway._tcp < /dev/null &")
	for n, class := range nodes {
		id := n.nodeID()
		avahi.Await(t, 6*time.Second, "=;eth0;IPv4;Hallway-"+id[:8]+";") // who was never seen is not seen to go
		attempts(t, "avahi-browse shows the "+class, 2*time.Second, func(t *testing.T) time.Duration {
			n.stop()
			avahi.Await(t, 3*time.Second, "-;eth0;IPv4;Hallway-"+id[:8]+";")
			from := avahi.Len()
			n.start()
			avahi.AwaitSince(t, from, 6*time.Second, "=;eth0;IPv4;Hallway-"+id[:8]+";_hallway._tcp;local;hw-"+id[:8]+".local;"+n.host.IPv4+";5061;",
				`"txtvers=1"`, `"id=`+id[:16]+`"`, `"home=`, `"ver=e2e"`, `"class=`+class+`"`, `"pair=0"`)
			return time.Since(n.began)
		})
		avahi.Say(t, fmt.Sprintf("avahi-browse -pt _%s._sub._hallway._tcp < /dev/null | sed s/^/%s-/", class, class))
		avahi.Await(t, 5*time.Second, class+"-+;eth0;IPv4;Hallway-"+id[:8]+";")
	}

	// Foreign services, by avahi and by grandcat/zeroconf.
	avahi.Publish(t, "pub", "Hall camera", "_rtsp._tcp", "554", "path=/h264")
	zh, err := l.Host("zeroconf")
	if err != nil {
		t.Fatal(err)
	}
	peers.Start(t, zh, peers.Build(t, "../interop/zeroconfpeer"))
	for n := range nodes {
		for _, name := range []string{"Hall camera", "Porch camera"} {
			n.eventually(5*time.Second, "it lists "+name+" as foreign", func() bool { return n.hasForeign(name, "_rtsp._tcp") })
		}
	}

	// One name for the app, which every node of the home shares.
	app := appName(tv)
	resolve := func() string {
		from := avahi.Len()
		avahi.Say(t, "avahi-resolve -4 -n "+app+" < /dev/null; echo asked")
		avahi.AwaitSince(t, from, 8*time.Second, "asked")
		return avahi.Output()[from:]
	}
	if got := resolve(); !strings.Contains(got, app+"\t10.77.0.") {
		t.Errorf("%s leads nowhere: %s", app, got)
	}
	tv.stop()
	panel.stop()
	cam.eventually(5*time.Second, app+" leads to the node that is left", func() bool { return strings.Contains(resolve(), app+"\t"+cam.host.IPv4+"\n") })
}

func (n *node) nodeID() string {
	n.t.Helper()
	for _, d := range ask[devices](n, "devices").Devices {
		if d.Self {
			return d.Node
		}
	}
	n.t.Fatal("it does not list itself")
	return ""
}

// appName is the host name of the home's app, from the home's domain.
func appName(n *node) string {
	_, home, _ := strings.Cut(ask[struct {
		Devices []struct{ AOR string }
	}](n, "devices").Devices[0].AOR, "@")
	return "hallway-" + home[:8] + ".local"
}
