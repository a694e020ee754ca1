package sessions

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// uri is the SIP URI of an AOR (RFC 3261 section 19.1); members use "sip:", never "sips:".
func uri(a devices.AOR) sip.Uri {
	return sip.Uri{Scheme: "sip", User: a.Slug, Host: a.Home.Domain(), UriParams: sip.NewParams(), Headers: sip.NewParams()}
}

func token(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// contact says where this device takes in-dialog requests, with RFC 3840 tags that are
// true and no others.
func (a *Agent) contact(self devices.Device) *sip.ContactHeader {
	addr := a.cfg.Flows.Addr(a.cfg.Self)
	u := sip.Uri{
		Scheme: "sip", User: self.Slug, Host: "[" + addr.Addr().String() + "]", Port: int(addr.Port()),
		UriParams: sip.HeaderParams{{K: "transport", V: "tls"}}, Headers: sip.NewParams(),
	}
	who := a.persona(self)
	p := sip.NewParams()
	if d := who.Capability.Audio.Direction; d != "" && d != profiles.Inactive {
		p = append(p, sip.HeaderKV{K: "audio"})
	}
	if d := who.Capability.Video.Direction; d != "" && d != profiles.Inactive {
		p = append(p, sip.HeaderKV{K: "video"})
	}
	b := who.Behaviour
	if b.Automata {
		p = append(p, sip.HeaderKV{K: "automata"})
	}
	if b.Mobility != "" {
		p = append(p, sip.HeaderKV{K: "mobility", V: `"` + b.Mobility + `"`})
	}
	if b.Duplex != "" {
		p = append(p, sip.HeaderKV{K: "duplex", V: `"` + b.Duplex + `"`})
	}
	p = append(p, sip.HeaderKV{K: "methods", V: `"` + strings.Join(methods(), ",") + `"`},
		sip.HeaderKV{K: "+sip.instance", V: `"<urn:uuid:` + uuidOf(a.cfg.Self) + `>"`})
	return &sip.ContactHeader{Address: u, Params: p}
}

// uuidOf writes a Node-ID as a UUID (RFC 9562 section 5.8, version 8: vendor's own).
func uuidOf(id devices.NodeID) string {
	b := [16]byte(id)
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

// sessionHeader is RFC 7989: the caller's half names the call on both sides.
func sessionHeader(local, remote string) sip.Header {
	if remote == "" {
		remote = strings.Repeat("0", 32)
	}
	return sip.NewHeader("Session-ID", local+";remote="+remote)
}

// sessionOf reads the sender's half; 32 hexadecimal digits or nothing.
func sessionOf(m sip.Message) string {
	type headers interface{ GetHeader(string) sip.Header }
	h := m.(headers).GetHeader("Session-ID")
	if h == nil {
		return ""
	}
	id, _, _ := strings.Cut(h.Value(), ";")
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return ""
	}
	return id
}

// request builds a request of a dialog, or outside one, towards a member.
func (a *Agent) request(method sip.RequestMethod, d *dialog, cseq uint32) *sip.Request {
	req := sip.NewRequest(method, d.target)
	req.AppendHeader(a.NewVia())
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := &sip.FromHeader{DisplayName: d.localName, Address: d.local, Params: sip.HeaderParams{{K: "tag", V: d.localTag}}}
	to := &sip.ToHeader{Address: d.remote, Params: sip.NewParams()}
	if d.remoteTag != "" {
		to.Params.Add("tag", d.remoteTag)
	}
	req.AppendHeader(from)
	req.AppendHeader(to)
	id := sip.CallIDHeader(d.callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: cseq, MethodName: method})
	if d.session != "" {
		req.AppendHeader(sessionHeader(d.session, d.remoteSession))
	}
	req.AppendHeader(sip.NewHeader("User-Agent", "Hallway/"+a.cfg.Version))
	req.SetBody(nil) // writes the Content-Length that framing needs
	req.SetTransport("TLS")
	req.SetDestination(a.cfg.Flows.Addr(d.peer).String())
	return req
}

func setSDP(m interface {
	AppendHeader(sip.Header)
	SetBody([]byte)
}, body []byte) {
	ct := sip.ContentTypeHeader("application/sdp")
	m.AppendHeader(&ct)
	m.SetBody(body)
}

// reasonHeader is RFC 3326.
func reasonHeader(code int, text string) sip.Header {
	return sip.NewHeader("Reason", fmt.Sprintf("SIP;cause=%d;text=%q", code, text))
}

const elsewhere = "Call completed elsewhere"

// ReasonElsewhere is what those hear who lost a call to another device: a reason-extension
// (RFC 3326 section 2, generic-param) says to whom, as a SIP URI; without one it is not said.
func ReasonElsewhere(by devices.AOR) sip.Header {
	value := fmt.Sprintf("SIP;cause=%d;text=%q", statusOK, elsewhere)
	if by.Slug != "" {
		value += fmt.Sprintf(";by=%q", by.String())
	}
	return sip.NewHeader("Reason", value)
}

// takenBy reads ReasonElsewhere; ok is false for every other end. by is a slug of the home, or
// empty: what another device says of it is believed only so far.
func (a *Agent) takenBy(req *sip.Request) (by string, ok bool) {
	h := req.GetHeader("Reason")
	if h == nil || !strings.Contains(h.Value(), "cause=200") && !strings.Contains(h.Value(), elsewhere) {
		return "", false
	}
	_, value, _ := strings.Cut(h.Value(), `;by="`)
	value, _, _ = strings.Cut(value, `"`)
	var who devices.AOR
	if who.UnmarshalText([]byte(value)) != nil {
		return "", true
	}
	if r, known := a.cfg.Resolver().Resolve(who.Slug); known && r.AOR == who {
		by = who.Slug
	}
	return by, true
}

// takenWords says to people who took a call.
func (a *Agent) takenWords(by string) string {
	if r, ok := a.cfg.Resolver().Resolve(by); ok && by != "" {
		return r.Name + " took it."
	}
	return "Answered on another device."
}
