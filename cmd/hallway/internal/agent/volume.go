package agent

import (
	"errors"
	"fmt"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions/media"
)

const volumeKey = "volume"

var errNoVolume = errors.New("the output of this device has no volume; its pipeline needs {{.Volume}} or {{.Gain}} in its command")

// restoreVolume makes the output as loud as it was before the agent was stopped.
func (a *Agent) restoreVolume() {
	level := media.FullVolume
	err := a.store.View(func(tx devices.Tx) error {
		if b := tx.Get(devices.BucketNode, volumeKey); len(b) == 1 {
			level = int(b[0])
		}
		return nil
	})
	if err != nil {
		a.log.Warn("the volume of before cannot be read", "err", err)
	}
	a.box.SetVolume(level)
}

// Volume implements api.Backend.
func (a *Agent) Volume() api.Volume {
	level, works := a.box.Volume()
	return api.Volume{Level: level, Works: works}
}

// SetVolume implements api.Backend: what plays follows at once, and the level is kept.
func (a *Agent) SetVolume(level int) (api.Volume, error) {
	if _, works := a.box.Volume(); !works {
		return a.Volume(), fmt.Errorf("%w: %w", api.ErrInput, errNoVolume)
	}
	if level < 0 || level > media.FullVolume {
		return a.Volume(), fmt.Errorf("%w: the volume goes from 0 to %d", api.ErrInput, media.FullVolume)
	}
	a.box.SetVolume(level)
	err := a.store.Update("volume", func(tx devices.Tx) error {
		return tx.Put(devices.BucketNode, volumeKey, []byte{byte(level)})
	})
	return a.Volume(), err
}
