package sessions

import (
	"context"
	"testing"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// sleeper is Maria's one phone, which nobody reaches.
func (h *house) sleeper(id devices.NodeID) {
	r := *h.roster
	r.Persons = map[string]devices.Person{"maria": {Slug: "maria", Name: "Maria", Nodes: []devices.NodeID{id}}}
	h.roster = &r
	h.dir.Store(devices.Fold(devices.Inputs{
		Roster: h.roster, Records: h.caps, Phone: devices.DeviceRecord{Capabilities: both},
		Bindings: map[devices.NodeID]devices.Binding{id: {WakesBy: "push.example", Asleep: true}},
	}))
}

// A call waits for a phone that it wakes, and rings there alone.
func TestCallWakesAPhone(t *testing.T) {
	var h *house
	id := devices.NodeID{0xee}
	wakes := func(c *Config) {
		c.Wake = func(_ context.Context, caller devices.Device, phones []devices.NodeID) <-chan devices.Device {
			out := make(chan devices.Device, 1)
			if caller.Slug == "tv" && len(phones) == 1 && phones[0] == id {
				h.binds(id, h.phones["panel"], 0xab)
				res, _ := h.dir.Load().Resolve("maria")
				out <- res.Devices[0]
			}
			close(out)
			return out
		}
	}
	h = newHouse(t, member{slug: "tv", config: wakes}, member{slug: "panel", edge: edgeFunc(func(req *sip.Request, tx *sip.ServerTx) bool {
		if only, phones := MeansPhones(req.Recipient); req.Method != sip.INVITE || !phones || only != id {
			return false
		}
		res := sip.NewResponseFromRequest(req, 200, "OK", nil)
		res.AppendHeader(&sip.ContactHeader{Address: req.Recipient})
		setSDP(res, append([]byte("v=0\r\naudio=sendrecv\r\nvideo=sendrecv\r\n"), fingerprint(0xab)...))
		_ = tx.Respond(res)
		return true
	})})
	h.sleeper(id)
	tv := h.phones["tv"]
	tv.calls("maria")
	c := tv.is(StateActive)
	if c.Peer != "maria" || len(c.Branches) != 1 || c.Branches[0].State != "answered" {
		t.Errorf("%+v", c)
	}
}

// When nobody wakes up the call ends as one that nobody answered.
func TestCallWakesNobody(t *testing.T) {
	waits := make(chan devices.Device)
	h := newHouse(t, member{slug: "tv", config: func(c *Config) {
		c.Wake = func(context.Context, devices.Device, []devices.NodeID) <-chan devices.Device { return waits }
	}}, member{slug: "panel"})
	h.sleeper(devices.NodeID{0xee})
	tv := h.phones["tv"]
	tv.calls("maria")
	tv.is(StateCalling)
	close(waits)
	if c := tv.is(StateEnded); c.Code != statusUnavailable || c.Reason != "Nobody answered at Maria." {
		t.Errorf("%d %q", c.Code, c.Reason)
	}
	if _, err := h.phones["panel"].Call("maria", CallOptions{}); err == nil {
		t.Error("a device that wakes nobody waits for nobody")
	}
}
