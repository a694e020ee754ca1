package agent

import (
	"errors"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/edge"
)

// openEdge makes the edge for browsers. Nothing listens for it here: the HTTPS server hands it
// phones that have logged in.
func (a *Agent) openEdge() error {
	phone, err := profiles.ForClass(string(devices.ClassPhone))
	if err != nil {
		return err
	}
	a.dir.SetPhone(devices.DeviceRecord{Capabilities: phone.Capabilities, Behaviour: devices.RecordBehaviour{Mobility: phone.Behaviour.Mobility, Duplex: phone.Behaviour.Duplex}})
	a.edge, err = edge.New(edge.Config{
		Agent: a.sip, Self: a.self, Bindings: bindings{a}, Capability: phone.Capabilities, MayRing: a.mayRing, Logger: a.log,
	})
	return err
}

// forgetPhones takes back what an earlier run said of its phones.
func (a *Agent) forgetPhones() {
	for phone, b := range a.mesh.Bindings() {
		if b.Node == a.self && b.Binding != a.edge.Name() && !b.Asleep {
			if err := (bindings{a}).Retract(phone, b.Signed); err != nil {
				a.log.Warn("others cannot be told that a phone is gone", "phone", phone, "err", err)
			}
		}
	}
}

// takeBindings brings what the home knows of its phones into the directory.
func (a *Agent) takeBindings() {
	out := map[devices.NodeID]devices.Binding{}
	for phone, b := range a.mesh.Bindings() {
		out[phone] = devices.Binding{Node: b.Node, Fingerprints: b.Fingerprints, Quiet: b.Quiet, Busy: b.Busy, Asleep: b.Asleep, WakesBy: b.WakesBy()}
	}
	a.dir.SetBindings(out)
}

// bindings implements edge.Bindings by records.
type bindings struct{ a *Agent }

func (b bindings) Open(phone devices.NodeID, signed []byte) (edge.Bound, error) {
	s, err := records.OpenBinding(signed, phone, b.a.self)
	return edge.Bound{Name: s.Binding, Fingerprints: s.Fingerprints, Quiet: s.Quiet, Wakes: s.Wake != nil}, err
}

func (b bindings) Publish(phone devices.NodeID, signed []byte, busy bool) error {
	return b.write(phone, signed, records.Said{Busy: busy})
}

func (b bindings) write(phone devices.NodeID, signed []byte, said records.Said) error {
	body, err := records.Mark(signed, said)
	if err == nil {
		err = b.a.mesh.Write(records.Statement{Subject: phone.String(), Kind: records.KindBinding, Body: cbor.RawMessage(body)})
	}
	if errors.Is(err, records.ErrKeys) {
		return sessions.Refusal(503, "This Node Has Too Many Phones")
	}
	return err
}

func (b bindings) Retract(phone devices.NodeID, signed []byte) error {
	if s, err := records.OpenBinding(signed, phone, b.a.self); err == nil && s.Wake != nil && b.a.roster.Roster().IsPhone(phone) {
		return b.write(phone, signed, records.Said{Asleep: true})
	}
	return b.a.mesh.Retract(phone.String(), records.KindBinding)
}

// asker is the key whose rights count for a call: a phone's own, not its node's.
func asker(from devices.Device) devices.NodeID {
	if len(from.Phones) > 0 {
		return from.Phones[0].ID
	}
	return from.Node
}

// mayRing is MayCall for the phones of a person.
func (a *Agent) mayRing(from devices.Device, person string) error {
	now, known := a.homeTime()
	if !a.roster.Roster().AllowsToPerson(devices.RightCall, asker(from), person, now, known) {
		return errors.New("the rules of the home do not allow it")
	}
	return nil
}
