package agent

import (
	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

const dndKey = "dnd"

// restoreDND takes up what a person wished before the agent was stopped.
func (a *Agent) restoreDND() {
	err := a.store.View(func(tx devices.Tx) error {
		a.dnd.Store(len(tx.Get(devices.BucketNode, dndKey)) > 0)
		return nil
	})
	if err != nil {
		a.log.Warn("whether this device may be disturbed cannot be read; calls ring", "err", err)
	}
	a.sip.SetQuiet(a.dnd.Load())
}

// DND implements api.Backend.
func (a *Agent) DND() api.DND { return api.DND{On: a.dnd.Load()} }

// SetDND implements api.Backend: calls are refused at once, and the home is told.
func (a *Agent) SetDND(on bool) (api.DND, error) {
	err := a.store.Update("dnd", func(tx devices.Tx) error {
		if on {
			return tx.Put(devices.BucketNode, dndKey, []byte{1})
		}
		return tx.Delete(devices.BucketNode, dndKey)
	})
	if err != nil {
		return a.DND(), err
	}
	a.dnd.Store(on)
	a.sip.SetQuiet(on)
	a.recordChanged()
	return a.DND(), nil
}

// presence is what this device says of itself.
func (a *Agent) presence() devices.Presence {
	switch {
	case a.dnd.Load():
		return devices.DND
	case a.sip.Engaged():
		return devices.Busy
	}
	return ""
}
