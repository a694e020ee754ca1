//go:build !linux

package multicast

import (
	"net/netip"
	"sync"
)

// watcher knows nothing here; protocols look at the interfaces now and then.
type watcher struct{ events chan struct{} }

func (w *watcher) start(*sync.WaitGroup) error { return nil }
func (w *watcher) stop()                       {}

func tentative() map[netip.Addr]bool { return nil }
