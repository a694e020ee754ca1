package devices

import (
	"bytes"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func openStore(t testing.TB, dir string, opt StoreOptions) *Store {
	t.Helper()
	s, err := OpenStore(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dump is everything in a store.
func dump(s *Store) string {
	var b strings.Builder
	_ = s.View(func(tx Tx) error {
		for _, bucket := range []string{BucketNode, BucketRoster, BucketRecords, BucketPairing} {
			_ = tx.Each(bucket, func(k string, v []byte) error {
				fmt.Fprintf(&b, "%s/%s=%x\n", bucket, k, v)
				return nil
			})
		}
		return nil
	})
	return b.String()
}

func TestStoreKeepsAndRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	k1, err := NodeKey(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir, StoreOptions{}); !errors.Is(err, ErrStoreInUse) {
		t.Fatalf("a second agent got %v", err)
	}
	fault := errors.New("no")
	err = s.Update("x", func(tx Tx) error { _ = tx.Put(BucketNode, "half", []byte{1}); return fault })
	if !errors.Is(err, fault) || strings.Contains(dump(s), "half") {
		t.Fatalf("half a transaction stays: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, StoreOptions{})
	defer func() { _ = s.Close() }()
	if k2, err := NodeKey(s); err != nil || !k1.Equal(k2) {
		t.Fatalf("the key changed: %v", err)
	}
}

// Two agents that start at once on a fresh folder: one makes the store and has it, the
// others are told.
func TestOneOfManyMakesTheStore(t *testing.T) {
	dir := t.TempDir()
	const agents = 4
	stores, errs := make([]*Store, agents), make([]error, agents)
	var wg sync.WaitGroup
	for i := range agents {
		wg.Go(func() { stores[i], errs[i] = OpenStore(dir, StoreOptions{}) })
	}
	wg.Wait()
	got := 0
	for i, s := range stores {
		switch {
		case s != nil:
			got++
			if _, err := NodeKey(s); err != nil {
				t.Error(err)
			}
			defer func() { _ = s.Close() }()
		case !errors.Is(errs[i], ErrStoreInUse):
			t.Errorf("agent %d: %v", i, errs[i])
		}
	}
	if got != 1 {
		t.Fatalf("%d agents have the store", got)
	}
}

func TestStoreErrorsAreOneSentence(t *testing.T) {
	if os.Geteuid() == 0 { // root may write anywhere: a file in the way does for both
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(filepath.Join(file, "data"), StoreOptions{}); err == nil || !strings.Contains(err.Error(), "--data") {
			t.Errorf("%v", err)
		}
	}
	for errno, want := range map[syscall.Errno]string{syscall.ENOSPC: "disk is full", syscall.EROFS: "read-only", syscall.EACCES: "permission"} {
		if err := plain(&os.PathError{Op: "write", Path: "x", Err: errno}); !strings.Contains(err.Error(), want) {
			t.Errorf("%v reads %v", errno, err)
		}
	}
}

func TestDamagedStoreIsSaid(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, storeFile), bytes.Repeat([]byte("no store"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir, StoreOptions{}); err == nil || !strings.Contains(err.Error(), "cannot open the store") {
		t.Fatal(err)
	}
}

// faultFile keeps what a power cut could leave of a bbolt file. bbolt writes a
// transaction's data pages, syncs, writes one meta page and syncs; so a cut leaves any
// part of the data pages with the old meta page, or all of them with the new meta page
// or a torn one.
type faultFile struct {
	before, after []byte
	page          int
}

// cuts lists images of the file after a power cut, seeded, with whether the new meta
// page can be in them.
func (f faultFile) cuts(r *mrand.Rand) [][]byte {
	size := max(len(f.before), len(f.after))
	old := append(bytes.Clone(f.before), make([]byte, size-len(f.before))...)
	next := append(bytes.Clone(f.after), make([]byte, size-len(f.after))...)
	var data, meta []int
	for p := 0; p < size/f.page; p++ {
		if bytes.Equal(old[p*f.page:(p+1)*f.page], next[p*f.page:(p+1)*f.page]) {
			continue
		}
		if p < 2 {
			meta = append(meta, p)
		} else {
			data = append(data, p)
		}
	}
	put := func(img []byte, p, n int) { copy(img[p*f.page:p*f.page+n], next[p*f.page:p*f.page+n]) }
	var out [][]byte
	for range 6 { // unsynced data pages: any of them, some torn at a sector
		img := bytes.Clone(old)
		for _, p := range data {
			switch r.IntN(3) {
			case 0:
				put(img, p, f.page)
			case 1:
				put(img, p, 512*r.IntN(f.page/512))
			}
		}
		out = append(out, img)
	}
	synced := bytes.Clone(old)
	for _, p := range data {
		put(synced, p, f.page)
	}
	out = append(out, bytes.Clone(synced)) // cut before the meta page
	for _, p := range meta {
		torn := bytes.Clone(synced)
		put(torn, p, 40) // part of the meta page: its checksum does not fit
		out = append(out, torn)
		put(synced, p, f.page)
	}
	return append(out, synced)
}

func TestPowerCutLeavesOldOrNew(t *testing.T) {
	r := mrand.New(mrand.NewPCG(3, 4))
	dir := t.TempDir()
	path := filepath.Join(dir, storeFile)
	s := openStore(t, dir, StoreOptions{})
	defer func() { _ = s.Close() }()
	images, news := 0, 0
	for i := range 40 {
		f := faultFile{page: os.Getpagesize()}
		f.before, _ = os.ReadFile(path)
		old := dump(s)
		err := s.Update("x", func(tx Tx) error {
			for range 1 + r.IntN(4) {
				key := fmt.Sprintf("k%d", r.IntN(30))
				if r.IntN(4) == 0 {
					_ = tx.Delete(BucketRecords, key)
				} else if err := tx.Put(BucketRecords, key, bytes.Repeat([]byte{byte(i)}, r.IntN(3000))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		f.after, _ = os.ReadFile(path)
		next := dump(s)
		for n, img := range f.cuts(r) {
			cutDir := filepath.Join(dir, "cut")
			_ = os.RemoveAll(cutDir)
			if err := errors.Join(os.MkdirAll(cutDir, 0o700), os.WriteFile(filepath.Join(cutDir, storeFile), img, 0o600)); err != nil {
				t.Fatal(err)
			}
			c, err := OpenStore(cutDir, StoreOptions{})
			if err != nil {
				t.Fatalf("transaction %d, cut %d: the store does not open: %v", i, n, err)
			}
			got := dump(c)
			if err := c.db.View(func(tx *bolt.Tx) error {
				for err := range tx.Check() {
					return err
				}
				return nil
			}); err != nil {
				t.Errorf("transaction %d, cut %d: %v", i, n, err)
			}
			_ = c.Close()
			images++
			switch got {
			case next:
				news++
			case old:
			default:
				t.Fatalf("transaction %d, cut %d: neither the old nor the new state", i, n)
			}
		}
	}
	t.Logf("%d images, %d with the new state", images, news)
	if news == 0 || news == images {
		t.Fatal("the fault file cuts nothing")
	}
}

// faultFiles is a file system on which what was not synced is lost with the power.
type faultFiles struct {
	osFiles
	cutAt int // operation before which the power goes
	n     int
	dirty map[string]bool // written, not synced
	moved map[string]string
}

var errPower = errors.New("power cut")

func (f *faultFiles) step() error {
	if f.n++; f.n == f.cutAt {
		return errPower
	}
	return nil
}

func (f *faultFiles) Remove(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.osFiles.Remove(path)
}

func (f *faultFiles) Sync(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	delete(f.dirty, path)
	return f.osFiles.Sync(path)
}

func (f *faultFiles) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.moved[from] = to
	return f.osFiles.Rename(from, to)
}

func (f *faultFiles) SyncDir(dir string) error {
	if err := f.step(); err != nil {
		return err
	}
	clear(f.moved)
	return f.osFiles.SyncDir(dir)
}

// lose undoes renames that were not synced, and tears files that were not.
func (f *faultFiles) lose(t *testing.T, dir string) {
	for from, to := range f.moved {
		if err := os.Rename(to, from); err != nil {
			t.Fatal(err)
		}
	}
	tmp := filepath.Join(dir, storeFile+".new")
	if f.dirty[tmp] {
		if b, err := os.ReadFile(tmp); err == nil {
			_ = os.WriteFile(tmp, b[:len(b)/3], 0o600)
		}
	}
}

func TestPowerCutWhileTheStoreIsMade(t *testing.T) {
	for cut := 1; cut <= 4; cut++ {
		dir := filepath.Join(t.TempDir(), "data")
		f := &faultFiles{cutAt: cut, dirty: map[string]bool{filepath.Join(dir, storeFile+".new"): true}, moved: map[string]string{}}
		if _, err := OpenStore(dir, StoreOptions{files: f}); !errors.Is(err, errPower) {
			t.Fatalf("cut %d: %v", cut, err)
		}
		f.lose(t, dir)
		s, err := OpenStore(dir, StoreOptions{})
		if err != nil {
			t.Fatalf("cut %d: the node does not start again: %v", cut, err)
		}
		if _, err := NodeKey(s); err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		_ = s.Close()
	}
}
