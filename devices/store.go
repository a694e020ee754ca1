package devices

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// storeFile is the one file in which a node keeps what must survive a power cut.
const storeFile = "hallway.db"

// lockWait bounds how long a second process waits for the file before it is told that
// another agent runs.
const lockWait = time.Second

// Buckets of the store.
const (
	BucketNode    = "node"    // the key, counters
	BucketRoster  = "roster"  // signed edits
	BucketRecords = "records" // signed records, own and others'
	BucketPairing = "pairing" // open window, pending joining
)

// ErrStoreInUse says that another process holds the store.
var ErrStoreInUse = errors.New("another Hallway agent already uses this data folder; stop it or choose another folder with --data")

// StoreOptions tunes a store; the zero value is right in production.
type StoreOptions struct {
	// Hook is called at every named write point, before and after the durable step
	// ("roster.append.before", "roster.append.after"); tests kill the process there.
	Hook func(point string)

	files fileOps // seam for the fault file system of the tests
}

// Store is a node's crash-safe key-value file. Each Update is one durable transaction:
// after a crash all of it is there or none. Safe for concurrent use.
type Store struct {
	db   *bolt.DB
	hook func(string)
}

// Tx is the view that a transaction has of the store.
type Tx struct{ tx *bolt.Tx }

// OpenStore opens the store in dir, making both when missing. A new file is made under
// another name, synced, renamed and its folder synced: bbolt itself may leave a torn
// file if the power fails while it is first written.
func OpenStore(dir string, opt StoreOptions) (*Store, error) {
	if opt.Hook == nil {
		opt.Hook = crashHook()
	}
	if opt.files == nil {
		opt.files = osFiles{}
	}
	if err := opt.files.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("cannot make the data folder %s: %w; choose a writable one with --data", dir, plain(err))
	}
	path := filepath.Join(dir, storeFile)
	if err := ensureStore(dir, path, opt); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrStoreInUse
	case err != nil:
		return nil, fmt.Errorf("cannot open the store %s: %w", path, plain(err))
	}
	return &Store{db: db, hook: opt.Hook}, nil
}

// ensureStore makes the store's file unless it is there.
func ensureStore(dir, path string, opt StoreOptions) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // whatever else is wrong with it, opening it will tell
	}
	unlock, err := lockFolder(dir, lockWait)
	if errors.Is(err, ErrStoreInUse) {
		return ErrStoreInUse
	}
	if err != nil {
		return fmt.Errorf("cannot lock the data folder %s: %w", dir, plain(err))
	}
	defer unlock()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // another process was faster
	}
	if err := createStore(dir, path, opt); err != nil {
		return fmt.Errorf("cannot create the store in %s: %w", dir, plain(err))
	}
	return nil
}

// createStore makes an empty database in a way that a crash leaves either none or all.
func createStore(dir, path string, opt StoreOptions) error {
	tmp := path + ".new"
	if err := opt.files.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: lockWait})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range []string{BucketNode, BucketRoster, BucketRecords, BucketPairing} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	opt.Hook("store.create.before")
	if err := opt.files.Sync(tmp); err != nil {
		return err
	}
	if err := opt.files.Rename(tmp, path); err != nil {
		return err
	}
	opt.Hook("store.create.renamed")
	if err := opt.files.SyncDir(dir); err != nil {
		return err
	}
	opt.Hook("store.create.after")
	return nil
}

// Update runs fn in one durable transaction; point names the write for tests and logs.
// When fn or the commit fails nothing is changed.
func (s *Store) Update(point string, fn func(Tx) error) error {
	s.hook(point + ".before")
	if err := s.db.Update(func(tx *bolt.Tx) error { return fn(Tx{tx}) }); err != nil {
		return plain(err)
	}
	s.hook(point + ".after")
	return nil
}

// View runs fn on a consistent view.
func (s *Store) View(fn func(Tx) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return fn(Tx{tx}) })
}

// Close frees the file. It waits for running transactions.
func (s *Store) Close() error { return s.db.Close() }

// Get returns a copy of the value, or nil.
func (t Tx) Get(bucket, key string) []byte {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return slices.Clone(b.Get([]byte(key)))
}

// Put stores a value.
func (t Tx) Put(bucket, key string, val []byte) error {
	b, err := t.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), val)
}

// Delete removes a value; deleting nothing is no error.
func (t Tx) Delete(bucket, key string) error {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key))
}

// Each calls fn for every pair of a bucket, in key order, with copies.
func (t Tx) Each(bucket string, fn func(key string, val []byte) error) error {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error { return fn(string(k), bytes.Clone(v)) })
}

// plain turns what the kernel says into a sentence with a next step.
func plain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk is full; free some space, nothing was lost: %w", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the file system is read-only; put the data folder elsewhere with --data: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to write there: %w", err)
	}
	return err
}

// fileOps are the few file operations that making a store needs.
type fileOps interface {
	MkdirAll(dir string) error
	Remove(path string) error
	Sync(path string) error
	Rename(from, to string) error
	SyncDir(dir string) error
}

type osFiles struct{}

func (osFiles) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o700) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }
func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (o osFiles) SyncDir(dir string) error   { return o.Sync(dir) }

func (osFiles) Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
