package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// The legs of a call, in the order in which each needs those before it. docs/cli.md says
// which exit code a failure of each has.
const (
	LegCaller   = "caller"     // the caller itself: home and network
	LegName     = "name"       // something has that name
	LegMember   = "membership" // it belongs, and has come
	LegSighting = "sighting"   // discovery shows it
	LegAddress  = "address"    // it is known where it is
	LegPort     = "port"       // TCP to its member port
	LegTLS      = "tls"        // both keys belong
	LegSIP      = "sip"        // it answers
	LegRoster   = "roster"     // both know the same home
	LegPolicy   = "policy"     // the caller may call it
	LegBusy     = "busy"       // it would ring now
	LegMedia    = "media"      // sound and picture can pass (ICE)
	LegCodec    = "codec"      // both have a codec in common
	LegCamera   = "camera"     // a foreign device answers the one that speaks for it
)

// Levels of a leg.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "fail"
	levelSkip = "skip"
)

// leg is one judge: it looks at the facts of a device and says what it finds.
type leg struct {
	name  string
	needs []string // legs whose failure makes this one impossible to try
	judge func(Callee) api.Check
}

// legs of one device, in order.
func legs() []leg {
	return []leg{
		{LegMember, nil, judgeMember},
		{LegSighting, nil, judgeSighting},
		{LegAddress, []string{LegMember}, judgeAddress},
		{LegPort, []string{LegAddress}, judgePort},
		{LegTLS, []string{LegPort}, judgeTLS},
		{LegSIP, []string{LegTLS}, judgeSIP},
		{LegRoster, []string{LegSIP}, judgeRoster},
		{LegPolicy, []string{LegSIP}, judgePolicy},
		{LegBusy, []string{LegPolicy}, judgeBusy},
		{LegMedia, []string{LegPolicy}, judgeMedia},
		{LegCodec, []string{LegMember}, judgeCodec},
	}
}

// legsOf adds what is true of foreign devices alone, and leaves out the way to oneself.
func legsOf(c Callee) []leg {
	all := legs()
	if !c.Foreign {
		return all
	}
	if c.Here {
		all = []leg{all[0], all[len(all)-1]}
	}
	return append(all, leg{LegCamera, []string{LegMember}, judgeCamera})
}

func judgeCamera(c Callee) api.Check {
	if c.Fault != "" {
		return bad("check the camera; `hallway adopt` with its address again changes its password", "%s does not answer %s, which speaks for it: %s", c.Name, c.Speaker, sentence(c.Fault))
	}
	return good("%s answers %s, which speaks for it", c.Name, c.Speaker)
}

func good(format string, args ...any) api.Check {
	return api.Check{Level: levelOK, Words: fmt.Sprintf(format, args...)}
}

func bad(advice, format string, args ...any) api.Check {
	return api.Check{Level: levelFail, Words: fmt.Sprintf(format, args...), Advice: advice}
}

func doubt(advice, format string, args ...any) api.Check {
	return api.Check{Level: levelWarn, Words: fmt.Sprintf(format, args...), Advice: advice}
}

func judgeCaller(c Caller) api.Check {
	switch {
	case c.Fault != "":
		return bad("", "%s", c.Fault)
	case len(c.Links) == 0 && len(c.Loose) > 0:
		return bad("plug the cable in, or join the Wi-Fi", "%s has no network: %s is not connected", c.Name, strings.Join(c.Loose, ", "))
	case len(c.Links) == 0:
		return bad("connect the network; `hallway doctor` there tells more", "%s has no network interface that is up", c.Name)
	}
	return good("%s belongs to the home and is connected by %s", c.Name, strings.Join(c.Links, ", "))
}

func judgeName(f Facts) api.Check {
	m := f.Missing
	switch {
	case f.Name != "" && len(f.Devices) == 0 && m.Itself:
		return bad("name another device; `hallway devices` lists them", "%q is %s itself", f.To, f.From.Name)
	case f.Name != "" && len(f.Devices) == 0:
		return bad("add devices to it: `hallway home rename DEVICE NAME --room ROOM`, or make it anew", "the %s %s has no devices", f.Kind, f.Name)
	case f.Name != "" && f.Kind == devices.KindForeign:
		return good("%s is a foreign device that this home adopted", f.Name)
	case f.Name != "" && f.Kind == devices.KindDevice:
		return good("%s is a device of this home", f.Name)
	case f.Name != "":
		var slugs []string
		for _, d := range f.Devices {
			slugs = append(slugs, d.Slug)
		}
		more := ""
		if f.More > 0 {
			more = fmt.Sprintf(" and %d more, not examined", f.More)
		}
		return good("%s is a %s with %s%s", f.Name, f.Kind, strings.Join(slugs, ", "), more)
	case m.Removed:
		return bad("to have it back, empty its data folder, then `hallway pair` there and `hallway add` on an owner", "%q was removed from this home", f.To)
	case len(m.OtherHome) > 0:
		return bad("if it is meant, remove it there and add it here: `hallway pair` on it, `hallway add` on an owner",
			"nothing in this home is called %q; in sight, but of another home: %s", f.To, strings.Join(m.OtherHome, ", "))
	case len(m.NoHome) > 0:
		return bad("if it is meant, add it: `hallway pair` on it, `hallway add` on an owner",
			"nothing in this home is called %q; in sight, but not added yet: %s", f.To, strings.Join(m.NoHome, ", "))
	}
	return bad("`hallway devices` and `hallway rooms` list what there is", "nothing in this home is called %q", f.To)
}

func judgeMember(c Callee) api.Check {
	if c.NeverSeen && c.Foreign {
		return bad("see that the device that speaks for it is on, or `hallway adopt` its address again", "no device that speaks for %s has told of it yet", c.Name)
	}
	if c.NeverSeen {
		return bad("switch it on, on this network, and give it some seconds", "%s was added but has never come", c.Name)
	}
	return good("%s belongs to this home", c.Name)
}

func judgeSighting(c Callee) api.Check {
	switch {
	case c.Sighted:
		return good("it announces itself on this network (%s)", ago(c.Now, c.SightedAt))
	case c.Flow.IsValid():
		return doubt("allow multicast (mDNS, UDP 5353) between the two, or name it in `peers`", "it is connected, but its announcements do not come here: multicast may be blocked")
	case c.LastHeard.IsZero():
		return doubt("", "it does not announce itself on this network, and was not heard since this agent started")
	}
	return doubt("", "it no longer announces itself on this network; last heard %s", ago(c.Now, c.LastHeard))
}

func judgeAddress(c Callee) api.Check {
	switch {
	case c.Flow.IsValid():
		return good("%s", c.Flow)
	case len(c.Addrs) == 0:
		return bad("switch it on, or name its host:port in `peers`", "nobody has told where %s is", c.Name)
	case !c.Near:
		return doubt("put both on one network, or see that the router lets them through", "%s is on another network than %s (%s)", c.Name, c.By, list(c.Addrs))
	}
	return good("%s", list(c.Addrs))
}

// best is the dial that came furthest: it says most.
func best(c Callee) (Dial, bool) {
	if len(c.Dialed) == 0 {
		return Dial{}, false
	}
	order := []Outcome{Good, Unwanted, Full, Stranger, OtherNode, OtherThing, Mute, Refused, Silent, NoRoute}
	return slices.MinFunc(c.Dialed, func(a, b Dial) int { return slices.Index(order, a.Outcome) - slices.Index(order, b.Outcome) }), true
}

func judgePort(c Callee) api.Check {
	if c.Flow.IsValid() {
		return good("connected")
	}
	d, ok := best(c)
	at := d.Addr.String()
	switch {
	case !ok:
		return bad("run this again", "no address could be dialled")
	case d.Outcome == Refused:
		return bad("start it there: `hallway up`; `hallway doctor` there tells more; a firewall that rejects TCP looks the same",
			"the machine at %s is on, but Hallway does not listen there", at)
	case (d.Outcome == Silent || d.Outcome == NoRoute) && c.Sighted:
		return bad("check its cable or Wi-Fi and its power; if it is on, let TCP port "+port16(d.Addr)+" through its firewall",
			"%s was announcing itself %s, but its member port %s gives no answer: it lost its network, or something blocks TCP", c.Name, ago(c.Now, c.SightedAt), at)
	case d.Outcome == Silent || d.Outcome == NoRoute:
		return bad("switch it on and connect it to this network", "%s is switched off or not connected: nothing answers at %s", c.Name, at)
	}
	return good("something answers at %s", at)
}

func judgeTLS(c Callee) api.Check {
	if c.Flow.IsValid() {
		return good("%s proved its key and takes %s", c.Name, c.By)
	}
	d, _ := best(c)
	switch d.Outcome {
	case Good:
		return good("%s proved its key and takes %s", c.Name, c.By)
	case Unwanted:
		return bad("on an owner, `hallway devices` must list both; a removed device joins again after its data folder is emptied",
			"%s refuses %s, which is no member of the home as %s knows it: removed, or its list is older", c.Name, c.By, c.Name)
	case Full:
		return bad("remove devices that are not used any more: `hallway home remove`", "%s has as many connections as it takes", c.Name)
	case Stranger:
		return bad("if it is "+c.Name+", set up anew or moved to another home: remove the old entry and add it again",
			"at %s answers a Hallway device that does not belong to this home", d.Addr)
	case OtherNode:
		return bad("wait until "+c.Name+" announces its new address, or restart it", "at %s answers another device of this home: the address of %s is out of date", d.Addr, c.Name)
	case Mute:
		return bad("restart Hallway on "+c.Name, "at %s a connection is taken but nothing is said: the program there hangs, or it is not Hallway", d.Addr)
	default:
		return bad("stop the program that holds the port on "+c.Name+", or give Hallway another with `listen`", "at %s answers something that is not Hallway: %s", d.Addr, d.Err)
	}
}

func judgeSIP(c Callee) api.Check {
	if c.SIP.Err != "" {
		return bad("wait some seconds and run this again; if it stays so, restart Hallway on "+c.Name, "%s is connected but does not answer: %s", c.Name, c.SIP.Err)
	}
	return good("%s answers in %s", c.Name, millis(c.SIP.Took))
}

func judgeRoster(c Callee) api.Check {
	r := c.Roster
	switch {
	case r.Err != "":
		return doubt("update Hallway on "+c.Name+" if it is older", "%s does not say which home it knows: %s", c.Name, r.Err)
	case !r.Equal:
		return doubt("connected devices agree within seconds: run this again; if it stays so, restart Hallway on the one with fewer",
			"the two know different states of the home: %d edits here, %d at %s", r.Mine, r.Theirs, c.Name)
	}
	return good("both know the same home, %d edits", r.Mine)
}

func judgePolicy(c Callee) api.Check {
	switch c.SIP.Code {
	case 403:
		return bad("`hallway home rule` on an owner shows and changes who may call "+c.Name, "%s does not take calls from %s: %s", c.Name, c.By, sentence(c.SIP.Words))
	case 404:
		return bad("run this again; if it stays so, restart Hallway on "+c.Name, "%s does not know that it is meant by this name", c.Name)
	}
	return good("%s takes calls from %s", c.Name, c.By)
}

func judgeBusy(c Callee) api.Check {
	switch c.SIP.Code {
	case 200:
		return good("it would ring now")
	case 486:
		return bad("call again later, or hang up there: `hallway hangup`", "%s is busy: it is in a call", c.Name)
	case 480:
		return bad("call again later, or end it there", "%s does not want to be disturbed: %s", c.Name, sentence(c.SIP.Words))
	}
	return bad("`hallway doctor` on "+c.Name+" tells more", "a call would be refused now: %d %s", c.SIP.Code, sentence(c.SIP.Words))
}

func judgeMedia(c Callee) api.Check {
	p := c.Media
	switch {
	case !p.Tried:
		return api.Check{Level: levelSkip, Words: "was not tried"}
	case p.Blocked:
		return bad("let UDP between the two through: a firewall, a guest network or a VPN may stop it",
			"calls can be set up, but sound and picture cannot pass: %s", p.Err)
	case p.Err != "":
		return bad("check the network and the setting `interfaces` on both", "sound and picture cannot be tried: %s", p.Err)
	}
	return good("packets pass after %s%s", millis(p.Took), pair(p))
}

func judgeCodec(c Callee) api.Check {
	if c.MatchErr != nil {
		return bad("choose classes or pipelines that share a codec; `hallway profiles` shows them", "%s and %s share no way to send sound or picture (no common codec)", c.By, c.Name)
	}
	var out []string
	for _, m := range []struct {
		what string
		m    profiles.MediumMatch
	}{{"sound", c.Match.Audio}, {"picture", c.Match.Video}} {
		if len(m.m.Codecs) == 0 {
			out = append(out, "no "+m.what)
			continue
		}
		var names []string
		for _, x := range m.m.Codecs {
			names = append(names, x.Name)
		}
		way := map[profiles.Direction]string{profiles.SendRecv: "both ways", profiles.SendOnly: "only to it", profiles.RecvOnly: "only from it"}[m.m.Direction]
		out = append(out, m.what+" "+way+" ("+strings.Join(names, ", ")+")")
	}
	return good("%s", strings.Join(out, ", "))
}

// ago says how long something is past, coarsely.
func ago(now, then time.Time) string {
	d := now.Sub(then).Round(time.Second)
	if d < 2*time.Second {
		return "just now"
	}
	if d > 2*time.Minute {
		return fmt.Sprintf("%d min ago", int(d.Round(time.Minute).Minutes()))
	}
	return d.String() + " ago"
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func list(addrs []netip.AddrPort) string {
	var out []string
	for _, a := range addrs[:min(len(addrs), 4)] {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func port16(a netip.AddrPort) string { return fmt.Sprint(a.Port()) }

func pair(p Path) string {
	if p.Local == "" || p.Remote == "" {
		return ""
	}
	return ", " + p.Local + " to " + p.Remote
}

// sentence takes the full stop from words that stand in a longer sentence.
func sentence(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), ".") }
