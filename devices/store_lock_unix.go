//go:build unix && !solaris && !illumos && !aix

package devices

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// lockPoll is the pause between attempts to get the folder; flock(2) has no time-out.
const lockPoll = 20 * time.Millisecond

// lockFolder keeps a second process out while the store is made: bbolt locks the file,
// but two makers would each have their own. The lock ends with the process.
func lockFolder(dir string, wait time.Duration) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
			_ = f.Close()
			return func() {}, nil // a file system without locks: bbolt will say so itself
		case time.Now().After(deadline):
			return nil, errors.Join(ErrStoreInUse, f.Close())
		}
	}
}
