package overlay

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

func TestHomeTime(t *testing.T) {
	built := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	now := built.AddDate(0, 1, 0)
	unset := time.Unix(0, 0)
	for name, c := range map[string]struct {
		own   time.Time
		peers []time.Time
		want  time.Time // zero: unknown
		sure  bool
	}{
		"alone with a good clock":               {now, nil, now, false},
		"alone without one":                     {unset, nil, time.Time{}, false},
		"no clock, one peer":                    {unset, []time.Time{now}, now, false},
		"no clock, peers without one":           {unset, []time.Time{unset, built.Add(-time.Hour)}, time.Time{}, false},
		"three agree":                           {now, []time.Time{now.Add(time.Second), now.Add(-time.Second)}, now, true},
		"one lies far ahead":                    {now, []time.Time{now.AddDate(5, 0, 0)}, now, false},
		"one lies far back":                     {now, []time.Time{built.Add(time.Second)}, now, false},
		"one lies among three":                  {now, []time.Time{now.AddDate(20, 0, 0), now.Add(time.Second)}, now.Add(time.Second), true},
		"one lies, and our clock is unset":      {unset, []time.Time{now.AddDate(20, 0, 0), now, now.Add(time.Second)}, now.Add(time.Second), true},
		"one lies beyond belief":                {unset, []time.Time{now.AddDate(5000, 0, 0), now}, now, false},
		"two each say something, no own clock":  {unset, []time.Time{now, now.AddDate(1, 0, 0)}, now, false},
		"own clock is wrong, peers agree":       {now.AddDate(3, 0, 0), []time.Time{now, now, now}, now, true},
		"two of four say something else, apart": {now, []time.Time{now, now.AddDate(1, 0, 0), now.AddDate(2, 0, 0)}, now, false},
	} {
		store, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		clock, err := newHomeClock(func() time.Time { return c.own }, built, store)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range c.peers {
			clock.hear(devices.NodeID{byte(i)}, p.UnixMilli())
		}
		got, known, sure := clock.now()
		if known == c.want.IsZero() || known && got.Sub(c.want).Abs() > time.Minute || sure != c.sure {
			t.Errorf("%s: %v, known %v, sure %v; want %v, %v", name, got, known, sure, c.want, c.sure)
		}
		// What is stored is what clocks agree on, and never undone.
		if err := clock.save(store); err != nil {
			t.Fatal(err)
		}
		again, err := newHomeClock(func() time.Time { return unset }, built, store)
		if err != nil {
			t.Fatal(err)
		}
		if stored := again.floor.After(built); stored != c.sure {
			t.Errorf("%s: the floor after it is %v", name, again.floor)
		}
		if c.sure {
			again.hear(devices.NodeID{1}, now.Add(-time.Hour).UnixMilli())
			if _, known, _ := again.now(); known {
				t.Errorf("%s: a time before the stored one is believed", name)
			}
		}
		_ = store.Close()
	}
}

func TestHomeTimeComesWithTheFlow(t *testing.T) {
	n := home(t, 3, func(x *node) {
		if x.log.Roster().Members[x.id].Slug == "node-2" {
			x.clock.wall = func() time.Time { return time.Unix(0, 0) }
			x.cfg.Clock = x.clock.wall
		}
	})
	if _, known := n[2].HomeTime(); known {
		t.Fatal("a node whose clock says 1970 knows the time although it is alone")
	}
	meet(t, n...)
	eventually(t, 2*time.Second, "all know the time", func() bool {
		for _, x := range n {
			if got, known := x.HomeTime(); !known || time.Since(got).Abs() > time.Second {
				return false
			}
		}
		return true
	})
}
