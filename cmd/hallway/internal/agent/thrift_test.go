package agent

import (
	"testing"
	"time"
)

func TestThrift(t *testing.T) {
	const all = 4
	var used time.Duration
	var th throttle
	after := func(looks int, load float64) (n int) {
		for range looks {
			used += time.Duration(load * float64(loadEvery))
			n = th.look(used, all)
		}
		return n
	}
	for _, c := range []struct {
		what  string
		looks int
		load  float64
		want  int
	}{
		{"it starts", 1, 0.9, all},
		{"not calm for long enough", calm - 1, 0.01, all},
		{"calm", 1, 0.01, 1},
		{"calm still", 100, 0.1, 1},
		{"media", 1, 0.5, all},
		{"media on all", 50, 2.5, all},
		{"a pause", calm / 2, 0.02, all},
		{"once more", 1, 0.3, all},
		{"calm again", calm, 0.02, 1},
	} {
		if got := after(c.looks, c.load); got != c.want {
			t.Errorf("%s: %d processors, want %d", c.what, got, c.want)
		}
	}
}
