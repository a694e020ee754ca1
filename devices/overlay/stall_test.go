package overlay

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// A card that writes nothing for longer than a peer may be silent costs no flow, whatever
// waits for it: own records and entries, those of others, roster edits, what ran out. What
// others say about themselves is known meanwhile, and all is made up for.
func TestStalledDiskCostsNoFlow(t *testing.T) {
	t.Parallel()
	n := home(t, 3, func(x *node) {
		if err := x.Write(records.Statement{Kind: "guest", Body: 1, TTL: time.Second}); err != nil {
			t.Fatal(err)
		}
	})
	meet(t, n...)
	slow, owner, other := n[1], n[0], n[2]
	eventually(t, 6*time.Second, "they agree", func() bool { return allAgree(n) })
	before := map[flowKey]*flow{}
	slow.mu.Lock()
	maps.Copy(before, slow.flows)
	slow.mu.Unlock()

	var writes sync.WaitGroup
	slow.card.Lock()
	began := time.Now()
	writes.Go(func() {
		if err := slow.Publish(records.KindDevice, devices.DeviceRecord{Version: "slow"}); err != nil {
			t.Error(err)
		}
	})
	writes.Go(func() {
		if err := slow.Append("call", "slow"); err != nil {
			t.Error(err)
		}
	})
	if err := owner.log.SetRoom(owner.key, "Attic"); err != nil { // an edit that the slow one is to store
		t.Fatal(err)
	}
	for i := range 5 { // entries, too
		if err := other.Append("call", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Publish(records.KindDevice, devices.DeviceRecord{Version: "other"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "what another says of itself is known at once", func() bool { return slow.has(other, 1) })
	eventually(t, 2*digestEvery, "more than two silences have passed", func() bool { return time.Since(began) > 2*silentAfter+digestEvery/4 })
	if slow.has(slow, 1) && strings.Contains(slow.says(slow), "slow") {
		t.Error("a record was told before it was durable")
	}
	slow.card.Unlock()
	writes.Wait()
	slow.mu.Lock()
	after := maps.Clone(slow.flows)
	slow.mu.Unlock()
	if !maps.Equal(before, after) || len(after) != 4 {
		t.Errorf("flows were lost while the disk stalled: %v before, %v after", before, after)
	}
	eventually(t, 3*digestEvery, "all is made up for", func() bool {
		return allAgree(n) && len(slow.log.Roster().Rooms) == 1 && slow.says(slow) != "" && owner.has(slow, 1)
	})
	if slow.flow(owner.id, trust.ALPNSIP) == nil {
		t.Error("the SIP flow is gone")
	}
}

// says is the version in a node's own record, as x knows it.
func (x *node) says(y *node) string {
	for _, r := range x.Records() {
		if d, err := records.DecodeDevice(r); err == nil && r.Writer == y.id && r.Kind == records.KindDevice {
			return d.Version
		}
	}
	return ""
}
