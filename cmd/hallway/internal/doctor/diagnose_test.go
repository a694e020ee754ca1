package doctor

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

var (
	now  = time.Date(2026, 11, 24, 22, 0, 0, 0, time.UTC)
	here = netip.MustParseAddrPort("10.77.0.2:5061")
)

// fine are the facts of a call that works; each test breaks one of them.
func fine() Facts {
	opus := profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	return Facts{
		From: Caller{Name: "TV", Links: []string{"eth0"}}, To: "panel", Kind: devices.KindDevice, Name: "Panel",
		Devices: []Callee{{
			Slug: "panel", Name: "Panel", By: "TV", Now: now, LastHeard: now, Sighted: true, SightedAt: now,
			Addrs: []netip.AddrPort{here}, Near: true, Flow: here,
			SIP: Answer{Code: 200, Took: time.Millisecond}, Roster: Rosters{Equal: true, Mine: 3, Theirs: 3},
			Media: Path{Tried: true, Local: "a", Remote: "b", Took: 12 * time.Millisecond},
			Match: profiles.MatchResult{Audio: profiles.MediumMatch{Direction: profiles.SendRecv, Codecs: []profiles.Codec{opus}}},
		}},
	}
}

// dead is a device that no dial reaches, in one way.
func dead(o Outcome) func(*Facts) {
	return func(f *Facts) {
		c := &f.Devices[0]
		c.Flow, c.Dialed = netip.AddrPort{}, []Dial{{Addr: here, Outcome: o, Err: "it said no"}}
	}
}

func device(change func(*Callee)) func(*Facts) { return func(f *Facts) { change(&f.Devices[0]) } }

func both(a, b func(*Facts)) func(*Facts) { return func(f *Facts) { a(f); b(f) } }

func unseen(f *Facts) { f.Devices[0].Sighted = false }

func nobody(m Missing) func(*Facts) {
	return func(f *Facts) { f.Name, f.Devices, f.Missing = "", nil, m }
}

func TestDiagnoseInWords(t *testing.T) {
	for name, c := range map[string]struct {
		broken func(*Facts)
		cause  string
		words  string // of the verdict
	}{
		"fine":            {func(*Facts) {}, "", "TV can call Panel."},
		"no home":         {func(f *Facts) { f.From.Fault = "this device belongs to no home yet" }, LegCaller, "TV cannot call Panel: this device belongs to no home yet."},
		"no cable here":   {func(f *Facts) { f.From.Links, f.From.Loose = nil, []string{"eth0"} }, LegCaller, "TV has no network: eth0 is not connected."},
		"no interface":    {func(f *Facts) { f.From.Links = nil }, LegCaller, "no network interface that is up"},
		"unknown name":    {nobody(Missing{}), LegName, `TV cannot call panel: nothing in this home is called "panel".`},
		"removed":         {nobody(Missing{Removed: true, NoHome: []string{"x"}}), LegName, `"panel" was removed from this home.`},
		"of another home": {nobody(Missing{OtherHome: []string{"Panel"}}), LegName, "in sight, but of another home: Panel."},
		"not added":       {nobody(Missing{NoHome: []string{"Panel"}}), LegName, "in sight, but not added yet: Panel."},
		"itself":          {func(f *Facts) { f.Devices, f.Missing.Itself = nil, true }, LegName, `"panel" is TV itself.`},
		"empty room":      {func(f *Facts) { f.Devices, f.Kind, f.Name = nil, devices.KindRoom, "Attic" }, LegName, "the room Attic has no devices."},
		"never came":      {device(func(c *Callee) { c.NeverSeen = true }), LegMember, "Panel was added but has never come."},
		"no address":      {both(dead(Silent), device(func(c *Callee) { c.Addrs = nil })), LegAddress, "nobody has told where Panel is."},
		"cable pulled":    {dead(Silent), LegPort, "Panel was announcing itself just now, but its member port 10.77.0.2:5061 gives no answer: it lost its network"},
		"switched off":    {both(dead(NoRoute), unseen), LegPort, "Panel is switched off or not connected: nothing answers at 10.77.0.2:5061."},
		"stopped":         {dead(Refused), LegPort, "the machine at 10.77.0.2:5061 is on, but Hallway does not listen there."},
		"not dialled":     {device(func(c *Callee) { c.Flow = netip.AddrPort{} }), LegPort, "no address could be dialled."},
		"hung":            {dead(Mute), LegTLS, "a connection is taken but nothing is said"},
		"other program":   {dead(OtherThing), LegTLS, "answers something that is not Hallway: it said no."},
		"stranger":        {dead(Stranger), LegTLS, "answers a Hallway device that does not belong to this home."},
		"old address":     {dead(OtherNode), LegTLS, "the address of Panel is out of date."},
		"removed there":   {dead(Unwanted), LegTLS, "Panel refuses TV, which is no member of the home as Panel knows it: removed, or its list is older."},
		"full":            {dead(Full), LegTLS, "Panel has as many connections as it takes."},
		"dead SIP":        {device(func(c *Callee) { c.SIP = Answer{Err: "timeout"} }), LegSIP, "Panel is connected but does not answer: timeout."},
		"policy":          {device(func(c *Callee) { c.SIP = Answer{Code: 403, Words: "The nursery sleeps."} }), LegPolicy, "Panel does not take calls from TV: The nursery sleeps."},
		"other name":      {device(func(c *Callee) { c.SIP.Code = 404 }), LegPolicy, "Panel does not know that it is meant by this name."},
		"busy":            {device(func(c *Callee) { c.SIP.Code = 486 }), LegBusy, "Panel is busy: it is in a call."},
		"do not disturb":  {device(func(c *Callee) { c.SIP = Answer{Code: 480, Words: "Quiet Hours"} }), LegBusy, "Panel does not want to be disturbed: Quiet Hours."},
		"odd refusal":     {device(func(c *Callee) { c.SIP = Answer{Code: 500, Words: "Oops"} }), LegBusy, "a call would be refused now: 500 Oops."},
		"UDP blocked":     {device(func(c *Callee) { c.Media = Path{Tried: true, Blocked: true, Err: "nothing came"} }), LegMedia, "calls can be set up, but sound and picture cannot pass: nothing came."},
		"no media here":   {device(func(c *Callee) { c.Media = Path{Tried: true, Err: "no address"} }), LegMedia, "sound and picture cannot be tried: no address."},
		"camera":          {device(func(c *Callee) { c.Foreign, c.Speaker = true, "Hub" }), "", "TV can call Panel."},
		"camera is off":   {device(func(c *Callee) { c.Foreign, c.Speaker, c.Fault = true, "Hub", "nothing answers at its address." }), LegCamera, "Panel does not answer Hub, which speaks for it: nothing answers at its address."},
		"camera unspoken": {device(func(c *Callee) { c.Foreign, c.NeverSeen = true, true }), LegMember, "no device that speaks for Panel has told of it yet."},
		"own camera":      {both(dead(Silent), device(func(c *Callee) { c.Foreign, c.Here, c.Speaker = true, true, "TV" })), "", "TV can call Panel."},
		"no codec":        {device(func(c *Callee) { c.MatchErr = profiles.ErrNothingInCommon }), LegCodec, "TV and Panel share no way to send sound or picture (no common codec)."},
		"only warnings": {both(unseen, device(func(c *Callee) { c.Roster.Equal, c.Near = false, false })),
			"", "TV can call Panel."},
	} {
		f := fine()
		c.broken(&f)
		d := Diagnose(f)
		if d.Cause != c.cause || d.OK != (c.cause == "") || !strings.Contains(d.Words, c.words) {
			t.Errorf("%s: cause %q, %q; want %q, %q", name, d.Cause, d.Words, c.cause, c.words)
		}
		if d.OK != (d.Advice == "") && c.cause != LegCaller {
			t.Errorf("%s: what to do is %q", name, d.Advice)
		}
		complete(t, name, d, f.Devices...)
	}
}

// complete checks what holds of every diagnosis: each leg once, in order, with words; none
// tried whose need failed; a repeated diagnosis says the same.
func complete(t *testing.T, name string, d api.Diagnosis, about ...Callee) {
	t.Helper()
	want, all := []string{LegCaller, LegName}, legs()
	if len(about) == 1 {
		all = legsOf(about[0])
	}
	for _, l := range all {
		want = append(want, l.name)
	}
	var got []string
	failed := map[string]bool{}
	for _, k := range d.Legs {
		got = append(got, k.Name)
		if k.Words == "" || k.Level == "" {
			t.Errorf("%s: %s says nothing: %+v", name, k.Name, k)
		}
		if k.Level == levelFail || k.Level == levelSkip {
			failed[k.Name] = true
		}
		for _, l := range legs() {
			if l.name != k.Name || k.Level == levelSkip {
				continue
			}
			for _, n := range l.needs {
				if failed[n] {
					t.Errorf("%s: %s was tried although %s fails", name, k.Name, n)
				}
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: legs %v", name, got)
	}
}

// A room can be called when one of its devices can, and the table says of each.
func TestDiagnoseOfARoom(t *testing.T) {
	f := fine()
	f.Kind, f.Name, f.To, f.More = devices.KindRoom, "Kitchen", "kitchen", 2
	speaker := f.Devices[0]
	speaker.Slug, speaker.Name, speaker.Flow, speaker.Dialed = "speaker", "Speaker", netip.AddrPort{}, []Dial{{Addr: here, Outcome: Refused}}
	f.Devices = append([]Callee{speaker}, f.Devices...)
	d := Diagnose(f)
	if !d.OK || d.Words != "TV can call Kitchen. Of its devices Panel would ring, Speaker would not." {
		t.Errorf("%q", d.Words)
	}
	if !strings.Contains(d.Legs[1].Words, "speaker, panel and 2 more, not examined") {
		t.Errorf("%q", d.Legs[1].Words)
	}
	found := map[string]string{}
	for _, k := range d.Legs {
		found[k.Device+" "+k.Name] = k.Level
	}
	if found["speaker port"] != levelFail || found["panel port"] != levelOK || found["speaker tls"] != levelSkip {
		t.Errorf("%v", found)
	}
	f.Devices = f.Devices[:1]
	if d := Diagnose(f); d.OK || d.Cause != LegPort {
		t.Errorf("%+v", d)
	}
}

// The dial that came furthest is the one that is told.
func TestBestDial(t *testing.T) {
	c := Callee{Dialed: []Dial{{Outcome: NoRoute}, {Outcome: Silent}, {Outcome: Refused}, {Outcome: Unwanted}, {Outcome: OtherThing}}}
	if d, ok := best(c); !ok || d.Outcome != Unwanted {
		t.Errorf("%+v %v", d, ok)
	}
	if _, ok := best(Callee{}); ok {
		t.Error("no dial is the best")
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "just now", 9 * time.Second: "9s ago", 5*time.Minute + 20*time.Second: "5 min ago"} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v: %q", d, got)
		}
	}
}
