package devices

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// smallDisk is a file system of that size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("REQUIRE_PEERS") == "1" {
			t.Fatalf("a full disk needs the right to mount one: %v", err)
		}
		t.Skipf("SKIPPED: a full disk needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskLosesNothing(t *testing.T) {
	dir := smallDisk(t, "256k")
	s := openStore(t, dir, StoreOptions{})
	key, err := NodeKey(s)
	if err != nil {
		t.Fatal(err)
	}
	var full error
	good := dump(s)
	for i := 0; full == nil; i++ {
		full = s.Update("x", func(tx Tx) error {
			return tx.Put(BucketRecords, fmt.Sprintf("k%d", i), bytes.Repeat([]byte{1}, 8<<10))
		})
		if full == nil {
			good = dump(s)
		}
		if i > 1000 {
			t.Fatal("the disk never fills up")
		}
	}
	if !errors.Is(full, syscall.ENOSPC) || !strings.Contains(full.Error(), "free some space, nothing was lost") {
		t.Fatalf("a full disk reads: %v", full)
	}
	if dump(s) != good {
		t.Fatal("the failed write changed what is read")
	}
	if err := s.Update("x", func(tx Tx) error { return tx.Delete(BucketRecords, "k0") }); err != nil {
		t.Logf("nor can anything be deleted: %v", err)
	}
	good = dump(s)
	_ = s.Close()
	s = openStore(t, dir, StoreOptions{})
	defer func() { _ = s.Close() }()
	if again, err := NodeKey(s); err != nil || !again.Equal(key) || dump(s) != good {
		t.Fatalf("after a restart: %v", err)
	}
}

func TestFullDiskAtTheFirstStart(t *testing.T) {
	if _, err := OpenStore(smallDisk(t, "4k"), StoreOptions{}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk is full") {
		t.Fatal(err)
	}
}
