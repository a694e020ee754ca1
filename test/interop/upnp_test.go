package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/peers"
)

const ourUUID = "1a2b3c4d-0000-8000-8000-000000000000"

func need(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		netlab.Missing(t, program+" is not installed (Debian: apt install "+pkg+")")
	}
}

// gssdp-discover finds us by each target with the USN that belongs to it, and hears our
// goodbye.
func TestGSSDPSeesUs(t *testing.T) {
	need(t, "gssdp-discover", "gupnp-tools")
	lab := netlab.For(t)
	ours := peers.Build(t, "./upnppeer")
	we := peers.Start(t, lab.MustHost(t, "we"), ours)
	usns := []string{"uuid:" + ourUUID, "uuid:" + ourUUID + "::upnp:rootdevice", "uuid:" + ourUUID + "::" + discovery.UPnPType}
	// All is asked for once our announcements are over, so that only answers count.
	time.Sleep(4 * time.Second)
	targets := map[string][]string{
		"ssdp:all": usns, "upnp:rootdevice": usns[1:2], "uuid:" + ourUUID: usns[:1], discovery.UPnPType: usns[2:],
		"urn:schemas-upnp-org:device:MediaRenderer:1": nil,
	}
	asked := map[string]*peers.Program{}
	for target := range targets { // on a host each: who shares an address shares its allowance
		asked[target] = peers.Start(t, lab.MustHost(t, target), "sh", "-c", "gssdp-discover -i eth0 -n 5 -t "+target+"; echo that is all")
	}
	gone := peers.Start(t, lab.MustHost(t, "listener"), "stdbuf", "-oL", "gssdp-discover", "-i", "eth0", "-n", "30", "-m", "unavailable")
	for target, want := range targets {
		asked[target].Await(t, 15*time.Second, "that is all")
		out := asked[target].Output()
		for _, u := range usns {
			found := regexp.MustCompile(`(?m)^\s*USN:\s+` + regexp.QuoteMeta(u) + `$`).MatchString(out)
			if found != slices.Contains(want, u) {
				t.Errorf("%s: %s is shown: %v:\n%s", target, u, found, out)
			}
		}
		if len(want) > 0 && !regexp.MustCompile(`Location: http://10\.77\.0\.1:\d+/d\.xml`).MatchString(out) {
			t.Errorf("%s: no location:\n%s", target, out)
		}
	}
	we.Stop()
	t.Logf("our goodbye was shown %v after our end", gone.Await(t, 3*time.Second, "USN:", usns[1]))
}

// thing is a program of others, and how we shall list it.
type thing struct {
	program, pkg, name, kind, is string
	start                        func(t *testing.T, h *netlab.Host) *peers.Program
}

func things() []thing {
	return []thing{
		{"minidlnad", "minidlna", "Den music", "device:MediaServer:1", "media server", func(t *testing.T, h *netlab.Host) *peers.Program {
			dir := t.TempDir()
			conf := filepath.Join(dir, "minidlna.conf")
			text := fmt.Sprintf("network_interface=eth0\nmedia_dir=%[1]s\ndb_dir=%[1]s\nlog_dir=%[1]s\nfriendly_name=Den music\nport=8200\ninotify=no\nuuid=4d696e69-444c-164e-9d41-0200000000aa\n", dir)
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return peers.Start(t, h, "minidlnad", "-d", "-f", conf, "-P", filepath.Join(dir, "pid"))
		}},
		{"gmediarender", "gmediarender", "Den player", "device:MediaRenderer:1", "renderer", func(t *testing.T, h *netlab.Host) *peers.Program {
			p := peers.Start(t, h, "stdbuf", "-oL", "gmediarender", "-I", "eth0", "-f", "Den player", "-u", "11111111-2222-3333-4444-555555555555",
				"--gstout-audiosink=fakesink", "--gstout-videosink=fakesink")
			p.Await(t, 10*time.Second, "Ready for rendering") // from then on it says goodbye when it is stopped
			return p
		}},
		{"rygel", "rygel", "Attic library", "device:MediaServer:3", "media server", func(t *testing.T, h *netlab.Host) *peers.Program {
			dir := t.TempDir()
			conf := filepath.Join(dir, "rygel.conf")
			text := "[general]\ninterface=eth0\nenable-transcoding=false\n[MediaExport]\nenabled=true\ntitle=Attic library\nuris=" + dir +
				"\n[External]\nenabled=false\n[MPRIS]\nenabled=false\n"
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			// Its bus is a program of its own: rygel says goodbye when it is ended, but not when its bus is ended first.
			bus := "unix:path=" + filepath.Join(dir, "bus")
			peers.Start(t, h, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--address="+bus, "--print-address").Await(t, 10*time.Second, bus)
			return peers.Start(t, h, "env", "HOME="+dir, "XDG_CACHE_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_RUNTIME_DIR="+dir,
				"DBUS_SESSION_BUS_ADDRESS="+bus, "rygel", "-c", conf)
		}},
	}
}

// What other people's software announces is listed with what it is, and its goodbye takes
// it away; two of them on one host stay two.
func TestUPnPThingsComeAndGo(t *testing.T) {
	ours := peers.Build(t, "./upnppeer")
	for _, x := range things() {
		t.Run(x.program, func(t *testing.T) {
			t.Parallel()
			need(t, x.program, x.pkg)
			lab := netlab.For(t)
			we := peers.Start(t, lab.MustHost(t, "we"), ours)
			h := lab.MustHost(t, "they")
			they := x.start(t, h)
			t.Logf("%s is listed %v after its start", x.program, we.Await(t, 15*time.Second, `"`+x.name+`"`, x.kind, `"Gone":false`, h.IPv4+":"))
			since := we.Len()
			late := peers.Start(t, lab.MustHost(t, "late"), ours, "-id", "2b")
			t.Logf("a latecomer lists it after %v", late.Await(t, 6*time.Second, `"`+x.name+`"`, x.kind, `"Gone":false`))
			they.Stop()
			t.Logf("its goodbye takes it away after %v", we.AwaitSince(t, since, 6*time.Second, `"`+x.name+`"`, `"Gone":true`))
		})
	}
}

func TestRendererAndServerOnOneHostAreTwoThings(t *testing.T) {
	all := things()[:2]
	for _, x := range all {
		need(t, x.program, x.pkg)
	}
	lab := netlab.For(t)
	we := peers.Start(t, lab.MustHost(t, "we"), peers.Build(t, "./upnppeer"), "-list")
	h := lab.MustHost(t, "den")
	for _, x := range all {
		x.start(t, h)
	}
	we.Await(t, 15*time.Second, `"name":"Den music","is":"media server"`, `"name":"Den player","is":"renderer"`)
}

// In each family alone two of ours find each other, on an interface that goes and comes
// back, too; rygel, which speaks both, is found by IPv6 alone.
func TestUPnPInOneFamilyAndOnALateInterface(t *testing.T) {
	ours := peers.Build(t, "./upnppeer")
	for _, c := range []struct{ name, flush, addr string }{
		{"IPv4", "-6 addr flush dev eth0", `"Addrs":["10.77.0.`}, {"IPv6", "-4 addr flush dev eth0", `"Addrs":["[fe80::`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.For(t)
			one, two := lab.MustHost(t, "one"), lab.MustHost(t, "two")
			ip(t, one, c.flush)
			ip(t, two, c.flush)
			a := peers.Start(t, one, ours)
			peers.Start(t, two, ours, "-id", "bb")
			a.Await(t, 5*time.Second, "Hallway-bb2b3c4d", c.addr, discovery.UPnPType, `"Gone":false`)
			if c.name == "IPv6" {
				rygel := things()[2]
				need(t, rygel.program, rygel.pkg)
				third := lab.MustHost(t, "rygel")
				ip(t, third, c.flush)
				rygel.start(t, third)
				a.Await(t, 15*time.Second, rygel.name, c.addr, `"Gone":false`)
				return // the link-local address would have to settle again
			}
			since := a.Len()
			ip(t, one, "link set eth0 down")
			a.AwaitSince(t, since, 3*time.Second, "Hallway-bb2b3c4d", `"Gone":true`)
			since = a.Len()
			ip(t, one, "link set eth0 up")
			t.Logf("found again %v after the interface came back", a.AwaitSince(t, since, 5*time.Second, "Hallway-bb2b3c4d", `"Gone":false`))
		})
	}
}

// On the wire: what a source gets back is at most three times what it asked with, and who
// is not on the link gets nothing, although the way there is open.
func TestUPnPAnswersAreBounded(t *testing.T) {
	lab := netlab.For(t)
	victim, asker := lab.MustHost(t, "we"), lab.MustHost(t, "asker")
	ours, askers := peers.Build(t, "./upnppeer"), peers.Build(t, "./ssdpasker")
	we := peers.Start(t, victim, ours)
	probe := peers.Start(t, lab.MustHost(t, "probe"), ours, "-id", "bb")
	probe.Await(t, 5*time.Second, "Hallway-1a2b3c4d", `"Gone":false`)
	probe.Stop() // it would answer, too
	ip(t, asker, "addr add 203.0.113.5/32 dev eth0")
	ip(t, victim, "route add 203.0.113.0/24 dev eth0")
	ask := func(from string, count string) (sent, got int) {
		t.Helper()
		out, err := asker.Command(t.Context(), askers, from, count, "1500ms").CombinedOutput()
		if _, serr := fmt.Sscanf(string(out), "sent %d got %d", &sent, &got); err != nil || serr != nil {
			t.Fatalf("%v %v: %s", err, serr, out)
		}
		return sent, got
	}
	for i, count := range []string{"1", "3", "200"} {
		from := fmt.Sprintf("10.77.0.%d", 100+i) // each with an allowance of its own
		ip(t, asker, "addr add "+from+"/24 dev eth0")
		sent, got := ask(from, count)
		t.Logf("%s searches: %d bytes asked, %d answered", count, sent, got)
		if got == 0 || got > 3*sent {
			t.Errorf("%s searches of %d bytes were answered with %d", count, sent, got)
		}
	}
	if sent, got := ask("203.0.113.5", "3"); got != 0 {
		t.Errorf("a source off the link asked with %d bytes and was answered with %d", sent, got)
	}
	if strings.Contains(we.Output(), "203.0.113.5") {
		t.Error("a source off the link is listed")
	}
}
