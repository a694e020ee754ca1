package sim

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// stores is a folder in memory if there is one: what a disk does is not simulated.
func stores(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hallway-sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// try runs one program in a bubble of its own.
func try(t *testing.T, p Program, dir string) (res Result, err error) {
	tell := func() {
		if r := recover(); r != nil {
			panic(fmt.Sprintf("%v\nin the program of %v", r, p))
		}
	}
	defer tell() // goroutines of the bubble that never end
	synctest.Test(t, func(*testing.T) {
		defer tell()
		res, err = Run(p, dir)
	})
	return res, err
}

// TestSim_Seeds runs HALLWAY_SIM_SEEDS programs (300 without it) from HALLWAY_SIM_FIRST on, on every core.
func TestSim_Seeds(t *testing.T) {
	first, count := number(t, "HALLWAY_SIM_FIRST", 1), number(t, "HALLWAY_SIM_SEEDS", 300)
	if one := number(t, "HALLWAY_SIM_SEED", 0); one > 0 {
		first, count = one, 1
	}
	dir := stores(t)
	var next, done atomic.Uint64
	var mu sync.Mutex
	var took []time.Duration
	began, virtual, apart := time.Now(), time.Duration(0), 0
	t.Run("all", func(t *testing.T) {
		for core := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("core", core), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					i := next.Add(1) - 1
					if i >= count {
						return
					}
					p := Generate(first + i)
					res, err := try(t, p, dir)
					if err != nil {
						next.Store(count)
						explain(t, p, res, err, dir)
						return
					}
					done.Add(1)
					mu.Lock()
					took = append(took, res.Took)
					virtual += res.Total
					if res.Apart {
						apart++
					}
					mu.Unlock()
				}
			})
		}
	})
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	secs := time.Since(began).Seconds()
	t.Logf("measured: %d seeds in %.1f s, %.1f a second, %.0f s of virtual time; agreed after calm: median %v, slowest %v; %d homes in two parts that put each other out",
		done.Load(), secs, float64(done.Load())/secs, virtual.Seconds(), took[len(took)/2], took[len(took)-1], apart)
	if n := done.Load(); n >= 100 && uint64(10*apart) > n { //nolint:gosec // not negative
		t.Errorf("%d of %d homes ended in two parts: too many to say that homes agree", apart, n)
	}
}

// explain shows a failure with the shortest program that shows it too.
func explain(t *testing.T, p Program, res Result, err error, dir string) {
	t.Errorf("rule broken: %v\n%v\n%s\nrun it again: HALLWAY_SIM_SEED=%d go test ./test/sim -run TestSim_Seeds -count=5 -v", err, p, res.Log, p.Seed)
	if os.Getenv("HALLWAY_SIM_SHRINK") == "" {
		return
	}
	small := Shrink(p, 60, func(q Program) bool {
		for range 2 {
			if _, err := try(t, q, dir); err != nil {
				return true
			}
		}
		return false
	})
	res, err = try(t, small, dir)
	t.Errorf("shorter: %v\n%v\n%s", err, small, res.Log)
}

// A home that was cut in two for ten minutes is one again within 5 s, without any
// multicast at that moment, at whichever moment between two dials the cut ends.
func TestSim_HealsAfterTenMinutes(t *testing.T) {
	dir, slowest := stores(t), time.Duration(0)
	for i := range 6 {
		synctest.Test(t, func(t *testing.T) {
			took, err := HealAfter(dir, 8, 10*time.Minute-time.Duration(i)*500*time.Millisecond)
			if err != nil || took == 0 || took > 5*time.Second {
				t.Fatalf("healed after %v: %v", took, err)
			}
			slowest = max(slowest, took)
		})
	}
	t.Logf("measured: healed %v after a cut of 10 minutes", slowest)
}
