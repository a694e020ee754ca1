package interop

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/peers"
)

// theirPort tells a service of avahi from one of ours.
const theirPort = "5999"

func ip(t *testing.T, h *netlab.Host, args string) {
	t.Helper()
	if out, err := h.Command(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// beside runs a test with avahi on another host and on ours.
func beside(t *testing.T, f func(t *testing.T, lab *netlab.Lab, we, avahi *netlab.Host)) {
	t.Run("remote", func(t *testing.T) {
		t.Parallel()
		lab := netlab.For(t)
		f(t, lab, lab.MustHost(t, "we"), lab.MustHost(t, "avahi"))
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		lab := netlab.For(t)
		h := lab.MustHost(t, "both")
		f(t, lab, h, h)
	})
}

func TestAvahiAndWeFollowEachOther(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, _ *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		avahi.Say(t, "avahi-browse -rp _hallway._tcp < /dev/null &")
		avahi.Publish(t, "pub", "Hall camera", "_rtsp._tcp", "554", "path=/h264")
		avahi.Await(t, 3*time.Second, "Established under name 'Hall camera'")
		we := peers.Start(t, weHost, ours)
		d := we.Await(t, 2*time.Second, `"Hall camera"`, `"_rtsp._tcp"`, ":554", "path=/h264", `"Gone":false`)
		t.Logf("we showed avahi's service %v after our start", d.Round(time.Millisecond))
		d = avahi.Await(t, 2*time.Second, "=;eth0;IPv4;Hallway-1a2b3c4d;_hallway._tcp;local;hw-1a2b3c4d.local;", ";5061;",
			`"txtvers=1"`, `"id=1a2b3c4d00000000"`, `"class=tv"`, `"pair=0"`)
		t.Logf("avahi-browse showed us after %v more", d.Round(time.Millisecond))

		// A TXT update, each way. avahi's comes from a file, the one way in which its tools change one.
		we.Say(t, "txtvers=1 pair=1")
		for deadline := time.Now().Add(3 * time.Second); ; {
			from := avahi.Len()
			avahi.Say(t, "avahi-browse -rpt _hallway._tcp < /dev/null; echo listed")
			avahi.AwaitSince(t, from, 3*time.Second, "listed")
			if peers.HasLine(avahi.Output()[from:], "=;", "Hallway-1a2b3c4d", `"pair=1"`) && !peers.HasLine(avahi.Output()[from:], `"pair=0"`) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("avahi does not show our new TXT record: %s", avahi.Output()[from:])
			}
		}
		// avahi reads a file again when its time of change, in whole seconds, is another.
		for i, text := range []string{"path=/old", "path=/new"} {
			from := we.Len()
			avahi.Say(t, `printf '<service-group><name>Doorbell</name><service><type>_rtsp._tcp</type><port>555</port><txt-record>`+text+
				`</txt-record></service></service-group>' > /etc/avahi/services/new; touch -d 2020-01-0`+strconv.Itoa(1+i)+` /etc/avahi/services/new; mv /etc/avahi/services/new /etc/avahi/services/door.service`)
			we.AwaitSince(t, from, 5*time.Second, `"Doorbell"`, ":555", text, `"Gone":false`)
		}

		// A goodbye, each way.
		avahi.Say(t, "kill $pub")
		t.Logf("avahi's goodbye removed its service after %v", we.Await(t, 2*time.Second, `"Hall camera"`, `"Gone":true`).Round(time.Millisecond))
		we.Stop()
		t.Logf("our goodbye removed ours after %v", avahi.Await(t, 2*time.Second, "-;eth0;IPv4;Hallway-1a2b3c4d;").Round(time.Millisecond))
	})
}

// Whoever comes later is renamed; whoever was first is never evicted, not even for a
// moment, in the eyes of a third host.
func TestConflictWithAvahi(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, lab *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		third := peers.Start(t, lab.MustHost(t, "third"), ours, "-quiet")
		shown := func(name, port string) {
			t.Helper()
			third.Await(t, 5*time.Second, `"Instance":"`+name+`"`, ":"+port+`"`, `"Gone":false`)
		}
		kept := func(name, port string) {
			t.Helper()
			for line := range strings.SplitSeq(third.Output(), "\n") {
				if strings.Contains(line, `"Instance":"`+name+`"`) && !peers.HasLine(line, ":"+port+`"`, `"Gone":false`) {
					t.Errorf("%s was taken from who was first: %s", name, line)
				}
			}
		}
		// We first.
		we := peers.Start(t, weHost, ours, "-name", "TV A")
		shown("TV A", "5061")
		avahi.Publish(t, "one", "TV A", "_hallway._tcp", theirPort)
		avahi.Await(t, 5*time.Second, "Established under name 'TV A #2'")
		shown("TV A #2", theirPort)
		kept("TV A", "5061")
		if peers.HasLine(we.Output(), "own TV A (2)") {
			t.Errorf("we were first and renamed ourselves")
		}
		we.Stop()
		// avahi first.
		avahi.Publish(t, "two", "TV B", "_hallway._tcp", theirPort)
		avahi.Await(t, 5*time.Second, "Established under name 'TV B'")
		shown("TV B", theirPort)
		we = peers.Start(t, weHost, ours, "-name", "TV B")
		we.Await(t, 5*time.Second, "own TV B (2)")
		shown("TV B (2)", "5061")
		kept("TV B", theirPort)
		if peers.HasLine(avahi.Output(), "'TV B #2'") {
			t.Error("avahi was first and renamed itself")
		}
		we.Stop()
	})
}

// Both probe for a name at the same time: whose TXT record sorts later keeps it (RFC 6762
// section 8.2). Whether they really overlap is up to the machine, so there are three
// attempts; the names end distinct in each.
func TestSimultaneousProbeWithAvahi(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, lab *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		third := peers.Start(t, lab.MustHost(t, "third"), ours, "-quiet")
		for text, weShouldLose := range map[string]bool{"a=1": false, "zzzzzzzzzzzzzzz=1": true} { // ours is "txtvers=1"
			for attempt := 1; ; attempt++ {
				name := fmt.Sprintf("TV %.1s%d", text, attempt)
				avahi.Publish(t, "pub", name, "_hallway._tcp", theirPort, text)
				we := peers.Start(t, weHost, ours, "-name", name)
				weLost := distinct(t, name, we, avahi, third)
				t.Logf("%s: we were renamed: %v, by the tie-break it should be %v", name, weLost, weShouldLose)
				we.Stop()
				avahi.Say(t, "kill $pub")
				if weLost == weShouldLose {
					break
				}
				if attempt == 3 {
					t.Errorf("the tie-break never decided")
				}
			}
		}
	})
}

// Two networks that both know a name become one.
func TestJoinedNetworksWithAvahi(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, lab *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		third := peers.Start(t, lab.MustHost(t, "third"), ours, "-quiet")
		cable(t, (*netlab.Host).Down, weHost, avahiHost)
		we := peers.Start(t, weHost, ours, "-name", "TV")
		avahi.Publish(t, "pub", "TV", "_hallway._tcp", theirPort)
		avahi.Await(t, 5*time.Second, "Established under name 'TV'")
		cable(t, (*netlab.Host).Up, weHost, avahiHost)
		distinct(t, "TV", we, avahi, third)
	})
}

// distinct waits until one of us and avahi has a new name and a third host shows both
// names, and reports whether it is us.
func distinct(t *testing.T, name string, we, avahi, third *peers.Program) (weLost bool) {
	t.Helper()
	lost := func() (ours, theirs bool) {
		return peers.HasLine(we.Output(), "own "+name+" (2)"), peers.HasLine(avahi.Output(), "Established under name '"+name+" #2'")
	}
	ours, theirs := lost()
	for deadline := time.Now().Add(8 * time.Second); !ours && !theirs && time.Now().Before(deadline); ours, theirs = lost() {
		time.Sleep(20 * time.Millisecond)
	}
	names := []string{name, name + " #2"}
	if ours {
		names = []string{name + " (2)", name}
	}
	third.Await(t, 5*time.Second, `"Instance":"`+names[0]+`"`, `:5061"`, `"Gone":false`)
	third.Await(t, 5*time.Second, `"Instance":"`+names[1]+`"`, ":"+theirPort+`"`, `"Gone":false`)
	if ours, theirs = lost(); ours == theirs {
		t.Errorf("%s: we lost: %v, avahi lost: %v", name, ours, theirs)
	}
	return ours
}

func cable(t *testing.T, change func(*netlab.Host) error, hosts ...*netlab.Host) {
	t.Helper()
	for _, h := range hosts {
		if err := change(h); err != nil {
			t.Fatal(err)
		}
	}
}

// A second interface is plugged in while both run and the first one's cable is out; then
// it is taken away again.
func TestLateAndVanishingInterfaceWithAvahi(t *testing.T) {
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, lab *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		avahi.Publish(t, "pub", "Hall camera", "_rtsp._tcp", "554")
		avahi.Say(t, "avahi-browse -rp _hallway._tcp < /dev/null &")
		cable(t, (*netlab.Host).Down, weHost, avahiHost)
		we := peers.Start(t, weHost, ours)
		other := avahiHost
		if weHost == avahiHost {
			other = lab.MustHost(t, "far end")
		}
		for _, cable := range []string{"first", "second"} { // the same again, after it vanished
			fromWe, fromAvahi := we.Len(), avahi.Len()
			ip(t, weHost, "link add eth1 type veth peer name eth1 netns "+other.NS)
			for i, h := range []*netlab.Host{weHost, other} {
				ip(t, h, fmt.Sprintf("addr add 10.78.0.%d/24 dev eth1", i+1))
				ip(t, h, "link set eth1 up")
			}
			d := we.AwaitSince(t, fromWe, 5*time.Second, `"Hall camera"`, "10.78.0.", ":554", `"Gone":false`)
			avahi.AwaitSince(t, fromAvahi, 5*time.Second, "=;eth1;IPv4;Hallway-1a2b3c4d;", "10.78.0.1", ";5061;")
			t.Logf("%s cable: seen by us after %v", cable, d.Round(time.Millisecond))
			fromWe, fromAvahi = we.Len(), avahi.Len()
			ip(t, weHost, "link del eth1")
			avahi.AwaitSince(t, fromAvahi, 3*time.Second, "-;", ";IPv4;Hallway-1a2b3c4d;") // with the interface's name, or without
			we.AwaitSince(t, fromWe, 3*time.Second, `"Hall camera"`, `"Gone":true`)
		}
	})
}

func TestTwentyServicesAtOnceWithAvahi(t *testing.T) {
	const n, ceiling = 20, 3 * time.Second
	ours := peers.Build(t, "./enginepeer")
	beside(t, func(t *testing.T, _ *netlab.Lab, weHost, avahiHost *netlab.Host) {
		avahi := peers.Avahi(t, avahiHost)
		avahi.Say(t, "avahi-browse -rp _rtsp._tcp < /dev/null &")
		watcher := peers.Start(t, weHost, ours, "-id", "cc")
		for attempt := 1; ; attempt++ {
			fromAvahi, began := avahi.Len(), time.Now()
			we := peers.Start(t, weHost, ours, "-services", fmt.Sprint(n))
			for i := range n {
				avahi.AwaitSince(t, fromAvahi, 10*time.Second, "=;eth0;IPv4;", fmt.Sprintf(`;Ours\032%d;`, i+1), ";554;")
			}
			oursSeen := time.Since(began)
			we.Stop()
			// Twenty files appear at once: avahi's own way to publish much.
			from, began := watcher.Len(), time.Now()
			avahi.Say(t, fmt.Sprintf(`for i in $(seq %d); do printf "<service-group><name>Theirs $i</name><service><type>_rtsp._tcp</type><port>55$i</port></service></service-group>"`+
				` > /etc/avahi/services/$i.service; done`, n))
			for i := range n {
				watcher.AwaitSince(t, from, 10*time.Second, fmt.Sprintf(`"Instance":"Theirs %d"`, i+1), `"Gone":false`)
			}
			theirsSeen := time.Since(began)
			t.Logf("attempt %d: avahi showed our %d services after %v, we showed avahi's after %v (ceiling %v)", attempt, n,
				oursSeen.Round(time.Millisecond), theirsSeen.Round(time.Millisecond), ceiling)
			from = watcher.Len()
			avahi.Say(t, "rm /etc/avahi/services/*.service")
			for i := range n {
				watcher.AwaitSince(t, from, 5*time.Second, fmt.Sprintf(`"Instance":"Theirs %d"`, i+1), `"Gone":true`)
			}
			if oursSeen <= ceiling && theirsSeen <= ceiling {
				return
			}
			if attempt == 3 {
				t.Fatal("never within the ceiling")
			}
		}
	})
}

// Two nodes share the name of the home's app: it leads to either, and to the other when
// one leaves.
func TestAvahiResolvesTheSharedName(t *testing.T) {
	const name = "hallway-1a2b3c4d.local"
	ours, lab := peers.Build(t, "./enginepeer"), netlab.For(t)
	hosts := []*netlab.Host{lab.MustHost(t, "one"), lab.MustHost(t, "two")}
	avahi := peers.Avahi(t, lab.MustHost(t, "avahi"))
	nodes := []*peers.Program{peers.Start(t, hosts[0], ours, "-id", "aa", "-share", name), peers.Start(t, hosts[1], ours, "-id", "bb", "-share", name)}
	resolve := func(family string) string {
		from := avahi.Len()
		avahi.Say(t, "avahi-resolve "+family+" -n "+name+" < /dev/null; echo asked")
		avahi.AwaitSince(t, from, 8*time.Second, "asked")
		return avahi.Output()[from:]
	}
	nodes[1].Await(t, 5*time.Second, "Hallway-aa2b3c4d", `"Gone":false`) // both announced by then
	if got := resolve("-4"); !strings.Contains(got, hosts[0].IPv4) && !strings.Contains(got, hosts[1].IPv4) {
		t.Errorf("the shared name leads nowhere: %s", got)
	}
	if got := resolve("-6"); !strings.Contains(got, name) || strings.Contains(got, "Failed") {
		t.Errorf("the shared name leads nowhere by IPv6: %s", got)
	}
	nodes[0].Stop()
	deadline := time.Now().Add(3 * time.Second)
	for got := resolve("-4"); !strings.Contains(got, hosts[1].IPv4); got = resolve("-4") {
		if time.Now().After(deadline) {
			t.Fatalf("after one node left: %s", got)
		}
	}
}
