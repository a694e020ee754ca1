package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type diagnosis struct {
	OK          bool
	Cause       string
	Words       string
	Advice      string
	From, To    string
	Legs        []doctorLeg
	exit        int
	took        time.Duration
	commandLine string
}

type doctorLeg struct{ Name, Device, Level, Words, Advice string }

// level of a leg, of one device where a name has several.
func (d diagnosis) level(leg, device string) string {
	for _, l := range d.Legs {
		if l.Name == leg && l.Device == device {
			return l.Level
		}
	}
	return "none"
}

// diagnose runs `hallway doctor` on a node.
func (n *node) diagnose(args ...string) diagnosis {
	n.t.Helper()
	start := time.Now()
	out, code := n.try(append([]string{"doctor"}, args...)...)
	d := diagnosis{exit: code, took: time.Since(start), commandLine: n.name + ": hallway doctor " + strings.Join(args, " ")}
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &d); err != nil || len(d.Legs) < 13 {
		n.t.Fatalf("%s: exit %d: %s", d.commandLine, code, out)
	}
	return d
}

// wants checks the verdict: the leg that fails, its exit code, and words of the sentence.
func (d diagnosis) wants(t *testing.T, cause string, exit int, words ...string) {
	t.Helper()
	t.Logf("%s (%v): %s", d.commandLine, d.took.Round(10*time.Millisecond), d.Words)
	missing := d.Cause != cause || d.exit != exit || d.OK != (cause == "") || cause != "" && d.Advice == "" && cause != "caller"
	for _, w := range words {
		missing = missing || !strings.Contains(d.Words, w)
	}
	if missing {
		t.Errorf("%s: want cause %q, exit %d, words %q; got %+v", d.commandLine, cause, exit, words, d)
	}
	if d.took > 20*time.Second {
		t.Errorf("%s took %v", d.commandLine, d.took)
	}
}

// rule adds a policy routing rule on a node's host: the kernel's own way to drop what the
// node sends.
func (n *node) rule(args ...string) {
	n.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := exec.Command("ip", append([]string{family, "-n", n.host.NS, "rule"}, args...)...).CombinedOutput()
		if err != nil {
			n.t.Fatalf("ip rule %v: %v: %s", args, err, out)
		}
	}
}

// All is well: each leg is ok, from here and from there, and nobody notices.
func TestA35_DoctorFindsNothingWrong(t *testing.T) {
	needs(t, "ffmpeg")
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen", "--source-pipeline", "test-picture")
	speaker := newNode(t, l, "Speaker", "speaker", "Kitchen")
	tv.invite(panel, speaker)
	for _, d := range []diagnosis{tv.diagnose("panel"), tv.diagnose("tv", "panel"), tv.diagnose("panel", "tv"), speaker.diagnose("panel", "tv")} {
		d.wants(t, "", 0, "can call")
		for _, leg := range d.Legs {
			if leg.Level != "ok" {
				t.Errorf("%s: %+v", d.commandLine, leg)
			}
		}
	}
	d := tv.diagnose("kitchen")
	d.wants(t, "", 0, "TV can call Kitchen")
	if d.level("media", "panel") != "ok" || d.level("media", "speaker") != "ok" || d.level("codec", "speaker") != "ok" {
		t.Errorf("%+v", d)
	}
	if n := cameras(panel.pid()); n != 0 {
		t.Errorf("the doctor opened %d cameras", n)
	}
	for _, n := range []*node{tv, panel, speaker} {
		if c := n.calls(); len(c) != 0 {
			t.Errorf("%s noticed a call: %+v", n.name, c)
		}
	}
	// In a call it is busy, and says so; the path is tried all the same.
	tv.run("call", "speaker", "--detach")
	speaker.incoming()
	d = panel.diagnose("speaker")
	d.wants(t, "busy", 6, "Panel cannot call Speaker", "busy")
	if d.level("media", "") != "ok" {
		t.Errorf("%+v", d)
	}
	panel.diagnose("nobody", "tv").wants(t, "name", 4, `nothing in this home is called "nobody"`)
	panel.diagnose("panel").wants(t, "name", 4, "itself")
	if out, code := panel.try("doctor", "kitchen", "tv"); code != 2 || !strings.Contains(out, "room") {
		t.Errorf("a room as the caller: exit %d: %s", code, out)
	}
}

// Each way of being out of reach has its own sentence.
func TestA35_DoctorTellsWhyItIsOutOfReach(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Kitchen")
	hall := newNode(t, l, "Stairs", "panel", "Hall")
	tv.invite(panel, hall)
	gone := func() {
		t.Helper()
		tv.eventually(6*time.Second, "the panel shows as unreachable", func() bool { return tv.sees("panel") == "unreachable" })
	}
	back := func() {
		t.Helper()
		for _, n := range []*node{tv, hall} {
			n.eventually(15*time.Second, "the panel is back", func() bool { return n.sees("panel") == "reachable" })
		}
		tv.eventually(5*time.Second, "its announcements come", func() bool { return tv.diagnose("panel").level("sighting", "") == "ok" })
	}

	// Hallway is stopped, the machine is on.
	panel.stop()
	gone()
	tv.diagnose("panel").wants(t, "port", 7, "the machine at", "is on, but Hallway does not listen there")
	tv.diagnose("panel", "tv").wants(t, "port", 7, "Panel cannot be reached", "does not listen")
	tv.eventually(3*time.Second, "its goodbye is believed", func() bool { return tv.diagnose("panel").level("sighting", "") == "warn" })

	// Switched off: it said goodbye, and nothing answers.
	if err := panel.host.Down(); err != nil {
		t.Fatal(err)
	}
	d := tv.diagnose("panel")
	d.wants(t, "port", 7, "Panel is switched off or not connected")
	if d.level("sighting", "") != "warn" {
		t.Errorf("%+v", d.Legs)
	}
	if err := panel.host.Up(); err != nil {
		t.Fatal(err)
	}
	panel.start()
	back()

	// The cable is pulled: it was announcing itself a moment ago.
	if err := panel.host.Down(); err != nil {
		t.Fatal(err)
	}
	gone()
	d = tv.diagnose("panel")
	d.wants(t, "port", 7, "TV cannot call Panel", "was announcing itself", "lost its network")
	if d.level("sighting", "") != "ok" || d.level("tls", "") != "skip" || d.level("media", "") != "skip" || d.level("codec", "") != "ok" {
		t.Errorf("%+v", d.Legs)
	}
	panel.diagnose("tv").wants(t, "caller", 1, "Panel has no network", "eth0 is not connected")
	// Asked about it, a third device says that it could not be asked, and what it knows.
	d = hall.diagnose("panel", "tv")
	d.wants(t, "port", 7, "Panel cannot be reached, so it cannot call and could not be asked")
	if d.level("port", "panel") != "fail" || d.level("media", "tv") != "ok" {
		t.Errorf("%+v", d.Legs)
	}
	if err := panel.host.Up(); err != nil {
		t.Fatal(err)
	}
	back()

	panel.stop()
	gone()
	// Another device, of no home of ours, has its address.
	other := *panel
	other.dir = t.TempDir()
	other.args = append(append([]string{}, panel.args...), "--data", other.dir)
	other.start()
	tv.diagnose("panel").wants(t, "tls", 7, "answers a Hallway device that does not belong to this home")
	other.stop()
	panel.start()
	back()

	// The way to its member port is blocked by a firewall that drops.
	panel.rule("add", "pref", "10", "ipproto", "tcp", "blackhole")
	gone()
	d = tv.diagnose("panel")
	d.wants(t, "port", 7, "was announcing itself", "something blocks TCP")
	if !strings.Contains(d.Advice, "TCP port 5061") {
		t.Errorf("%s", d.Advice)
	}
	panel.rule("del", "pref", "10")
	back()

	// TCP passes, UDP does not: calls would be silent.
	panel.rule("add", "pref", "9", "ipproto", "udp", "dport", "5353", "lookup", "main")
	panel.rule("add", "pref", "10", "ipproto", "udp", "blackhole")
	for _, d := range []diagnosis{tv.diagnose("panel"), tv.diagnose("panel", "tv")} {
		d.wants(t, "media", 7, "calls can be set up, but sound and picture cannot pass", "10.77.0.")
		if d.level("sip", "") != "ok" || !strings.Contains(d.Advice, "UDP") {
			t.Errorf("%+v", d)
		}
	}
}

// Names, homes and codecs.
func TestA35_DoctorTellsWhoBelongs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	pcm := func(name, codec string) string {
		dir := t.TempDir()
		file, conf := filepath.Join(dir, "profile.yaml"), filepath.Join(dir, "hallway.yaml")
		text := "class: speaker\ntitle: " + name + "\ncapabilities:\n  audio: {direction: sendrecv, codecs: [{name: " + codec + ", clock: 8000, channels: 1}]}\n  video: {direction: inactive}\n" +
			"behaviour: {auto-answer: false, ring-timeout: 30s, half-duplex: true, max-calls: 1, automata: false, mobility: fixed, duplex: full}\npipelines: []\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(conf, []byte("pipelines: "+file+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return conf
	}
	tv := newNode(t, l, "TV", "tv", "").start().found()
	odd := newNode(t, l, "Odd", "speaker", "", "--config", pcm("Odd", "PCMA"))
	narrow := newNode(t, l, "Narrow", "speaker", "", "--config", pcm("Narrow", "PCMU"))
	cam := newNode(t, l, "Cam", "camera", "")
	tv.invite(odd, narrow, cam)

	d := odd.diagnose("narrow")
	d.wants(t, "codec", 8, "Odd cannot call Narrow", "no common codec")
	if d.level("media", "") != "ok" {
		t.Errorf("the path is fine: %+v", d.Legs)
	}
	tv.diagnose("odd", "narrow").wants(t, "codec", 8, "no common codec")
	d = tv.diagnose("cam")
	d.wants(t, "", 0)
	if !strings.Contains(d.Legs[len(d.Legs)-1].Words, "picture only from it (H264") {
		t.Errorf("%+v", d.Legs)
	}
	tv.run("home", "rule", "cam", "call", "--nobody")
	tv.eventually(5*time.Second, "the rule is known", func() bool { return tv.diagnose("cam").exit != 0 })
	d = tv.diagnose("cam")
	d.wants(t, "policy", 5, "TV cannot call Cam", "does not take calls from TV", "the rules of the home")
	if d.level("media", "") != "skip" || d.level("sip", "") != "ok" {
		t.Errorf("%+v", d.Legs)
	}
	tv.diagnose("attic").wants(t, "name", 4, `nothing in this home is called "attic"`)

	// Of another home, and of none.
	next := newNode(t, l, "Neighbour", "tv", "", "--names-on-lan").start()
	tv.eventually(5*time.Second, "the stranger is seen", func() bool { return strings.Contains(tv.diagnose("neighbour").Words, "not added yet") })
	tv.diagnose("neighbour").wants(t, "name", 4, "in sight, but not added yet")
	next.found()
	tv.eventually(5*time.Second, "its home is seen", func() bool { return strings.Contains(tv.diagnose("neighbour").Words, "of another home") })
	tv.diagnose("neighbour").wants(t, "name", 4, "in sight, but of another home: Neighbour")
	next.diagnose("tv").wants(t, "name", 4, `nothing in this home is called "tv"`)
	next.diagnose("cam").wants(t, "name", 4, `nothing in this home is called "cam"`, "of another home")
	if d := tv.diagnose("neighbour", "cam"); d.Cause != "name" || d.exit != 4 || !strings.Contains(d.Words, "of another home: Neighbour") {
		t.Errorf("%+v", d)
	}

	// Removed: the others know it, and it is told.
	tv.run("home", "remove", "cam")
	for _, n := range []*node{tv, odd} {
		n.eventually(10*time.Second, "the removal is known", func() bool { return n.sees("cam") == "" })
		n.diagnose("cam").wants(t, "name", 4, `"cam" was removed from this home`)
	}
	cam.eventually(10*time.Second, "it has lost the others", func() bool { return cam.diagnose("tv").exit != 0 })
	cam.diagnose("tv").wants(t, "tls", 7, "TV refuses Cam", "removed")

	// A node that belongs nowhere.
	fresh := newNode(t, l, "Fresh", "tv", "").start()
	fresh.diagnose("tv").wants(t, "caller", 1, "belongs to no home")
}
