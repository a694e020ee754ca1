// Package crash kills real processes with SIGKILL at named write points while they join,
// edit the roster and write records, and checks that what is left on disk is the state
// before or after the write that was cut off.
package crash

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	kills = 200
	steps = 12
)

// state is what the model and the disk are compared by.
type state struct {
	key    bool   // the node has its key
	epoch  uint64 // of the roster
	rooms  int
	record uint64 // sequence of the own record
	log    int    // entries of the own log, each with its blob
	fails  bool   // a window is open
}

func (s state) String() string {
	return fmt.Sprintf("key=%v epoch=%d rooms=%d record=%d log=%d window=%v", s.key, s.epoch, s.rooms, s.record, s.log, s.fails)
}

// program is a seeded list of steps; the first ones make or join a home.
func program(seed uint64) []string {
	r := mrand.New(mrand.NewPCG(seed, 7)) //nolint:gosec // a test program, no secret
	list := []string{"key", []string{"create", "join"}[r.IntN(2)]}
	for len(list) < steps {
		list = append(list, []string{"room", "record", "message", "window", "close"}[r.IntN(5)])
	}
	if list[1] == "join" { // a device that only joined may not edit
		for i, s := range list {
			if s == "room" {
				list[i] = "record"
			}
		}
	}
	return list
}

// model says what a step makes of a state.
func model(s state, step string) state {
	switch step {
	case "key":
		s.key = true
	case "create":
		s.epoch = 1
	case "join":
		s.epoch, s.rooms = 3, 1
	case "room":
		s.epoch++
		s.rooms++
	case "record":
		s.record++
	case "message":
		s.log++
	case "window":
		s.fails = true
	case "close":
		s.fails = false
	}
	return s
}

// child runs a program and kills itself at the n-th write point.
func child(dir string, seed uint64, n int) error {
	passed := 0
	store, err := devices.OpenStore(dir, devices.StoreOptions{Hook: func(point string) {
		if passed++; passed == n {
			fmt.Println("killed at", point)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing after this point may run
		}
	}})
	if err != nil {
		return err
	}
	fmt.Println("done open")
	key, err := devices.NodeKey(store)
	if err != nil {
		return err
	}
	fmt.Println("done key")
	log, err := trust.OpenLog(store)
	if err != nil {
		return err
	}
	mesh, err := overlay.New(overlay.Config{Key: key, Roster: log, Store: store})
	if err != nil {
		return err
	}
	for i, step := range program(seed)[1:] {
		if err := do(step, i, store, key, log, mesh); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, step, err)
		}
		fmt.Println("done", step)
	}
	fmt.Println("points", passed)
	return nil
}

func do(step string, i int, store *devices.Store, key *ecdsa.PrivateKey, log *trust.Log, mesh *overlay.Mesh) error {
	switch step {
	case "create":
		_, err := log.Create(key, trust.CreateParams{HomeName: "Home", Name: "TV"})
		return err
	case "join":
		edits, home, err := othersHome(key)
		if err != nil {
			return err
		}
		return log.Adopt(edits, home, devices.NodeIDOf(&key.PublicKey))
	case "room":
		return log.SetRoom(key, fmt.Sprintf("Room %d", i))
	case "record":
		return mesh.Publish("device", map[int]int{1: i})
	case "message":
		ref, err := mesh.PutBlob(fmt.Appendf(nil, "message %d", i))
		if err != nil {
			return err
		}
		return mesh.Append("message", i, ref)
	case "window":
		_, err := pairing.OpenWindow(store, "123123123", 0)
		return err
	case "close":
		w, err := pairing.RestoreWindow(store)
		if err != nil || w == nil {
			return err
		}
		return w.Close()
	}
	return errors.New("unknown step")
}

// othersHome is the log of a home with three edits, which admits key.
func othersHome(key *ecdsa.PrivateKey) ([]trust.SignedEdit, devices.HomeID, error) {
	dir, err := os.MkdirTemp("", "hallway-crash-owner")
	if err != nil {
		return nil, devices.HomeID{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := devices.OpenStore(dir, devices.StoreOptions{Hook: func(string) {}})
	if err != nil {
		return nil, devices.HomeID{}, err
	}
	defer func() { _ = store.Close() }()
	log, err1 := trust.OpenLog(store)
	owner, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, devices.HomeID{}, err
	}
	_, err1 = log.Create(owner, trust.CreateParams{HomeName: "Home", Name: "TV"})
	err2 = log.SetRoom(owner, "Attic")
	_, err3 := log.Admit(owner, trust.Candidate{Key: devices.CompressedKey(&key.PublicKey), Name: "Panel"})
	return log.Edits(), log.Roster().Home, errors.Join(err1, err2, err3)
}

// onDisk reopens what a killed process left.
func onDisk(dir string) (s state, err error) {
	store, err := devices.OpenStore(dir, devices.StoreOptions{})
	if err != nil {
		return s, err
	}
	defer func() { _ = store.Close() }()
	if err := store.View(func(tx devices.Tx) error { s.key = tx.Get(devices.BucketNode, "key") != nil; return nil }); err != nil {
		return s, err
	}
	if !s.key {
		return s, nil
	}
	key, err := devices.NodeKey(store)
	if err != nil {
		return s, err
	}
	log, err := trust.OpenLog(store)
	if err != nil {
		return s, err
	}
	if r := log.Roster(); r != nil {
		s.epoch, s.rooms = r.Epoch, len(r.Rooms)
	}
	mesh, err := overlay.New(overlay.Config{Key: key, Roster: log, Store: store})
	if err != nil {
		return s, err
	}
	for _, r := range mesh.Records() {
		s.record = r.Sequence
	}
	if s.log, err = messages(mesh); err != nil {
		return s, err
	}
	w, err := pairing.RestoreWindow(store)
	s.fails = w != nil
	return s, err
}

// messages counts log entries; each must have its blob.
func messages(mesh *overlay.Mesh) (int, error) {
	list, err := mesh.Entries("message")
	for _, r := range list {
		for _, ref := range r.Blobs {
			if _, err := mesh.Blob(context.Background(), ref.Hash); err != nil {
				return 0, fmt.Errorf("entry %d: %w", r.Sequence, err)
			}
		}
	}
	return len(list), err
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("HALLWAY_CRASH_CHILD"); dir != "" {
		seed, _ := strconv.ParseUint(os.Getenv("HALLWAY_CRASH_SEED"), 10, 64)
		n, _ := strconv.Atoi(os.Getenv("HALLWAY_CRASH_N"))
		if err := child(dir, seed, n); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild returns the last lines of a child, and the state that the model gives to what
// it had done.
func runChild(t *testing.T, dir string, seed uint64, n int) (before state, next string, points int, point string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HALLWAY_CRASH_CHILD="+dir, "HALLWAY_CRASH_SEED="+strconv.FormatUint(seed, 10), "HALLWAY_CRASH_N="+strconv.Itoa(n))
	out, _ := cmd.Output()
	list := program(seed)
	done := 0
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	for sc.Scan() {
		switch word, rest, _ := strings.Cut(sc.Text(), " "); word {
		case "done":
			if rest != "open" {
				before = model(before, rest)
				done++
			}
		case "killed":
			point = rest
		case "points":
			points, _ = strconv.Atoi(rest)
		case "error":
			t.Fatalf("seed %d: %s", seed, rest)
		}
	}
	if done < len(list) {
		next = list[done]
	}
	return before, next, points, point
}

func TestKilledAtAnyWritePoint(t *testing.T) {
	r := mrand.New(mrand.NewPCG(1, 2)) //nolint:gosec // chooses where to kill
	seen := map[string]int{}
	for seed := range uint64(kills) {
		dir := filepath.Join(t.TempDir(), "data")
		n := 1 + r.IntN(2*steps+2)
		before, next, points, point := runChild(t, dir, seed, n)
		if points > 0 {
			point = "never"
		}
		seen[point]++
		got, err := onDisk(dir)
		if err != nil {
			t.Fatalf("seed %d, killed %s before %q was done: the node does not start again: %v", seed, point, next, err)
		}
		after := before
		if next != "" {
			after = model(before, next)
		}
		if got != before && got != after {
			t.Errorf("seed %d, killed %s before %q was done: on disk is %v, want %v or %v", seed, point, next, got, before, after)
		}
	}
	t.Logf("killed at %v", seen)
	for _, p := range []string{"at store.create.before", "at node.key.before", "at roster.create.after", "at roster.adopt.before", "at record.write.after", "at log.append.before", "at blob.put.after", "at pairing.open.before", "at roster.name.before"} {
		if seen[p] == 0 {
			t.Errorf("no process was killed %s", p)
		}
	}
}
