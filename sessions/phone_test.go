package sessions

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// fingerprint is a line of a description, for a certificate whose hash has one byte throughout.
func fingerprint(b byte) string {
	return "a=fingerprint:sha-256 " + strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%02X:", b), 32), ":") + "\r\n"
}

// binds makes Maria's phone reachable through a node; its certificate's hash is one byte throughout.
func (h *house) binds(id devices.NodeID, node *phone, print byte) {
	r := *h.roster
	r.Persons = map[string]devices.Person{"maria": {Slug: "maria", Name: "Maria", Nodes: []devices.NodeID{id}}}
	h.roster = &r
	h.dir.Store(devices.Fold(devices.Inputs{
		Roster: h.roster, Records: h.caps, Phone: devices.DeviceRecord{Capabilities: both},
		Bindings: map[devices.NodeID]devices.Binding{id: {Node: node.id, Fingerprints: [][]byte{bytes.Repeat([]byte{print}, 32)}}},
	}))
}

// asMaria sends an INVITE in Maria's name.
func (p *phone) asMaria(t *testing.T, to *phone, sdp string) *sip.Response {
	t.Helper()
	dlg := &dialog{
		peer: to.id, callID: token(8), localTag: token(4), session: token(16),
		local: uri(devices.AOR{Slug: "maria", Home: homeOf(t, p)}), remote: uri(selfOf(t, to).AOR), target: uri(selfOf(t, to).AOR),
	}
	req := p.request(sip.INVITE, dlg, 1)
	setSDP(req, []byte(sdp))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := p.reach(ctx, to.id); err != nil {
		t.Fatal(err)
	}
	res, err := p.roundTrip(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A node speaks for a person only with what a phone of that person has signed for it.
func TestPersonSpeaksThroughTheNodeOfItsPhone(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers}, member{slug: "camera"})
	tv, panel, camera := h.phones["tv"], h.phones["panel"], h.phones["camera"]
	id := devices.NodeID{0xee}
	h.binds(id, tv, 0xab)
	good := "v=0\r\naudio=sendrecv\r\nvideo=sendrecv\r\n" + fingerprint(0xab)
	for _, c := range []struct {
		what string
		by   *phone
		sdp  string
		want int
	}{
		{"another fingerprint", tv, strings.Replace(good, "AB", "AC", 1), statusForbidden},
		{"two, one of them another", tv, good + fingerprint(0xcd), statusForbidden},
		{"none", tv, "v=0\r\n", statusForbidden},
		{"through another node", camera, good, statusForbidden},
		{"as the phone signed it", tv, good, statusOK},
	} {
		if res := c.by.asMaria(t, panel, c.sdp); res.StatusCode != c.want {
			t.Errorf("%s: %d, not %d", c.what, res.StatusCode, c.want)
		}
	}
	c := panel.is(StateActive)
	if c.Peer != "maria" || c.From.Slug != "maria" {
		t.Errorf("it is taken for %+v", c)
	}
	// The phone is no longer one of the home's: its call ends.
	r := *h.roster
	r.Persons = map[string]devices.Person{}
	h.roster = &r
	h.fold()
	panel.is(StateEnded)
}

// A phone's binding and its first call come over different flows.
func TestCallWaitsForItsBinding(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: answers})
	tv, panel := h.phones["tv"], h.phones["panel"]
	id := devices.NodeID{0xee}
	h.binds(id, panel, 0x11)
	asked := make(chan int, 1)
	go func() {
		asked <- tv.asMaria(t, panel, "v=0\r\naudio=sendrecv\r\nvideo=sendrecv\r\n"+fingerprint(0xab)).StatusCode
	}()
	eventually(t, "the call has come", func() bool {
		panel.gate.mu.Lock()
		defer panel.gate.mu.Unlock()
		return len(panel.gate.owner) > 0
	})
	h.binds(id, tv, 0xab)
	if code := <-asked; code != statusOK {
		t.Errorf("%d", code)
	}
}

// What answers for a person must be a phone of that person, too.
func TestAnswerIsThatOfThePhone(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", edge: edgeFunc(func(req *sip.Request, tx *sip.ServerTx) bool {
		if _, phones := MeansPhones(req.Recipient); req.Method != sip.INVITE || !phones {
			return false
		}
		res := sip.NewResponseFromRequest(req, 200, "OK", nil)
		res.AppendHeader(&sip.ContactHeader{Address: req.Recipient})
		setSDP(res, append([]byte("v=0\r\n"), fingerprint(0xcd)...))
		_ = tx.Respond(res)
		return true
	})})
	tv, panel := h.phones["tv"], h.phones["panel"]
	h.binds(devices.NodeID{0xee}, panel, 0xab)
	tv.calls("maria")
	if c := tv.is(StateEnded); c.Code != statusForbidden || !strings.Contains(c.Reason, "phone of Maria") {
		t.Errorf("the call ended with %+v", c)
	}
}

type edgeFunc func(*sip.Request, *sip.ServerTx) bool

func (f edgeFunc) Take(req *sip.Request, tx *sip.ServerTx) bool { return f(req, tx) }
func (edgeFunc) Stop()                                          {}
func (edgeFunc) Review(time.Time)                               {}
