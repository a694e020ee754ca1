package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
	"github.com/hallway-home/hallway/test/peers"
)

// stranger is a foreign thing as `hallway devices --all` tells of it.
type stranger struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Is        string    `json:"is"`
	Protocols []string  `json:"protocols"`
	Addrs     []string  `json:"addrs"`
	LastSeen  time.Time `json:"last_seen"`
}

func (n *node) strangers() []stranger {
	return ask[struct {
		Foreign []stranger `json:"foreign"`
	}](n, "devices", "--all").Foreign
}

func (n *node) stranger(name string) (stranger, bool) {
	all := n.strangers()
	i := slices.IndexFunc(all, func(s stranger) bool { return s.Name == name })
	if i < 0 {
		return stranger{}, false
	}
	return all[i], true
}

// A TV agent on an empty LAN announces itself by mDNS and SSDP within 2 s; avahi-browse
// and gssdp-discover show it.
func TestA1_AnnouncesItself(t *testing.T) {
	for _, p := range []string{"gssdp-discover", "stdbuf"} {
		if _, err := exec.LookPath(p); err != nil {
			netlab.Missing(t, p+" is missing; apt install gupnp-tools coreutils")
		}
	}
	l := newLab(t)
	watcher := l.MustHost(t, "watcher")
	avahi := peers.Avahi(t, watcher)
	avahi.Say(t, "stdbuf -oL avahi-browse -rp _hallway._tcp < /dev/null &")
	tv := newNode(t, l, "TV", "tv", "Living room")
	var gssdp *peers.Program
	attempts(t, "shown by avahi-browse and gssdp-discover after the start", 2*time.Second, func(t *testing.T) time.Duration {
		gssdp = peers.Start(t, watcher, "stdbuf", "-oL", "gssdp-discover", "-i", "eth0")
		gssdp.Await(t, 5*time.Second, `Showing "available" messages`)
		since := avahi.Len()
		tv.stop()
		tv.start()
		for time.Since(tv.began) < 5*time.Second {
			if peers.HasLine(gssdp.Output(), "Location: http://"+tv.host.IPv4+":") && peers.HasLine(avahi.Output()[since:], "=;eth0;", ";Hallway-", ";_hallway._tcp;", `"class=tv"`) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		return time.Since(tv.began)
	})
	txt := regexp.MustCompile(`"id=([0-9a-f]{16})"`).FindStringSubmatch(avahi.Output())
	if txt == nil {
		t.Fatal("no id in the TXT record")
	}
	uuid := txt[1][:8] + "-" + txt[1][8:12] + "-8000-80" + txt[1][12:14] + "-" + txt[1][14:] + "0000000000"
	for _, target := range []string{"", "::upnp:rootdevice", "::urn:hallway-home:device:HomeSession:1"} {
		gssdp.Await(t, 5*time.Second, "USN:", "uuid:"+uuid+target)
	}
	for _, private := range []string{"Living", "TV"} {
		if strings.Contains(gssdp.Output(), private) {
			t.Errorf("SSDP tells %q", private)
		}
	}
}

// Foreign things (a UPnP renderer, an ONVIF and an RTSP camera, a plain SIP phone) are
// listed as foreign, with what they are, and never trusted by themselves: they are in no
// room, have no name in the home and cannot be called. Gone, they leave the list.
func TestA5_ForeignThingsAreListedNeverTrusted(t *testing.T) {
	for _, p := range []string{"gmediarender", "avahi-publish"} {
		if _, err := exec.LookPath(p); err != nil {
			netlab.Missing(t, p+" is missing; apt install gmediarender avahi-utils")
		}
	}
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Den").start().found()
	panel := newNode(t, l, "Panel", "panel", "Den")
	tv.invite(panel)
	render := peers.Start(t, l.MustHost(t, "render"), "gmediarender", "-I", "eth0", "-f", "Den player",
		"-u", "11111111-2222-3333-4444-555555555555", "--gstout-audiosink=fakesink", "--gstout-videosink=fakesink")
	avahi := peers.Avahi(t, l.MustHost(t, "avahi"))
	avahi.Publish(t, "cam", "Porch camera", "_rtsp._tcp", "554", "path=/live")
	avahi.Publish(t, "phone", "Desk phone", "_sip._udp", "5060")
	onvif := peers.Start(t, l.MustHost(t, "onvif"), peers.Build(t, "./onvifcamera"), "Garden")
	all := map[string]stranger{
		"Den player":   {Is: "renderer", Protocols: []string{"ssdp"}},
		"Porch camera": {Is: "camera", Protocols: []string{"mdns"}},
		"Desk phone":   {Is: "SIP phone", Protocols: []string{"mdns"}},
		"Garden":       {Is: "camera", Protocols: []string{"wsd"}},
	}
	for _, n := range []*node{tv, panel} {
		for name, want := range all {
			took := n.eventually(10*time.Second, "it lists "+name, func() bool { _, ok := n.stranger(name); return ok })
			got, _ := n.stranger(name)
			t.Logf("%s lists %s after %v: %+v", n.name, name, took.Round(time.Millisecond), got)
			if got.Is != want.Is || !slices.Equal(got.Protocols, want.Protocols) || len(got.Addrs) == 0 || time.Since(got.LastSeen) > time.Minute {
				t.Errorf("%s: %s is listed as %+v", n.name, name, got)
			}
			for _, s := range []string{slugOf(name), "sip:" + slugOf(name) + "@" + got.Addrs[0]} {
				if out, code := n.try("call", s); code != 4 {
					t.Errorf("%s: calling the foreign %s: exit %d: %s", n.name, s, code, out)
				}
			}
			if out, code := n.try("resolve", slugOf(name)); code != 4 {
				t.Errorf("%s: the foreign %s has a name in the home: %s", n.name, name, out)
			}
		}
		if extra := n.strangers(); len(extra) != len(all) {
			t.Errorf("%s lists more than is there, or members as foreign: %+v", n.name, extra)
		}
		members := ask[devices](n, "devices")
		if len(members.Devices) != 2 || len(members.Foreign) != 0 {
			t.Errorf("%s: without --all: %+v", n.name, members)
		}
		if r := ask[struct{ Devices []device }](n, "resolve", "den"); len(r.Devices) != 2 {
			t.Errorf("%s: the room Den has %+v", n.name, r)
		}
	}
	tableAndWatch(t, tv, render)
	onvif.Stop()
	tv.eventually(5*time.Second, "the ONVIF camera left", func() bool { _, ok := tv.stranger("Garden"); return !ok })
	avahi.Stop()
	tv.eventually(10*time.Second, "nothing foreign is left", func() bool { return len(tv.strangers()) == 0 })
}

// tableAndWatch looks at what people see: an aligned table, and changes as they happen.
func tableAndWatch(t *testing.T, n *node, render *peers.Program) {
	t.Helper()
	out, err := exec.Command(binary, "devices", "--all", "--data", n.dir).CombinedOutput()
	if err != nil || !peers.HasLine(string(out), "CALLED", "IS", "SEEN BY", "ADDRESS", "LAST SEEN") || !peers.HasLine(string(out), "Den player", "renderer", "ssdp", "just now") {
		t.Errorf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch := exec.CommandContext(ctx, binary, "devices", "--all", "--watch", "--json", "--data", n.dir)
	pipe, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = watch.Wait() }()
	dec := json.NewDecoder(pipe)
	for first := true; ; first = false {
		var e struct {
			Foreign any
			Change  struct {
				Kind    string
				Foreign stranger
			}
		}
		if err := dec.Decode(&e); err != nil {
			t.Fatalf("--watch did not tell that the renderer left: %v", err)
		}
		if first { // the list comes first; the feed is open when it is printed, or soon after
			n.eventually(5*time.Second, "the renderer is listed", func() bool { _, ok := n.stranger("Den player"); return ok })
			time.AfterFunc(200*time.Millisecond, render.Stop)
		}
		if e.Change.Kind == "removed" && e.Change.Foreign.Name == "Den player" {
			return
		}
	}
}

// Each protocol can be switched off: its port is then not even open.
func TestProtocolsAreSwitchedOff(t *testing.T) {
	l := newLab(t)
	ports := map[string]string{"mdns": ":14E9 ", "ssdp": ":076C ", "ws-discovery": ":0E76 "} // 5353, 1900, 3702
	for off := range ports {
		file := filepath.Join(t.TempDir(), "hallway.yaml")
		if err := os.WriteFile(file, []byte("discovery: {"+off+": false}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, l, "without "+off, "panel", "", "--config", file).start()
		open := func() string {
			var all string
			for _, f := range []string{"udp", "udp6"} {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", n.pid(), f))
				if err != nil {
					t.Fatal(err)
				}
				all += string(b)
			}
			return all
		}
		for p, port := range ports {
			if p != off {
				n.eventually(5*time.Second, p+" is spoken", func() bool { return strings.Contains(open(), port) })
			}
		}
		if strings.Contains(open(), ports[off]) {
			t.Errorf("%s is switched off, and its port is open:\n%s", off, open())
		}
		n.stop()
	}
}
