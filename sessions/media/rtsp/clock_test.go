package rtsp

import (
	"testing"
	"time"
)

// A clock follows the packets that were least late, drift, and clocks that are set anew.
func TestClockOfACamera(t *testing.T) {
	start := time.Unix(1e9, 0)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	var c clock
	for i := range 1000 {
		late := ms(i * 37 % 90) // each third packet or so is much too late
		taken := time.Unix(50, 0).Add(ms(i * 40))
		at := c.at(taken, start.Add(ms(i*40)).Add(late))
		if off := at.Sub(start.Add(ms(i * 40))); i > 100 && (off < 0 || off > ms(6)) {
			t.Fatalf("packet %d is put %v behind the least late", i, off)
		}
	}
	if at := c.at(time.Unix(9000, 0), start.Add(time.Hour)); !at.Equal(start.Add(time.Hour)) {
		t.Errorf("after it was set: %v", at)
	}
	s := stampClock{rate: 90000}
	stamp := uint32(1<<32 - 3600*100)
	for i := range 500 { // a camera that runs 100 ppm slow, across the wrap
		now := start.Add(ms(i * 40)).Add(ms(i*40) / 10000)
		if off := now.Sub(s.at(stamp, now)); off < 0 || off > ms(1) {
			t.Fatalf("packet %d: off by %v", i, off)
		}
		stamp += 3600
	}
}
