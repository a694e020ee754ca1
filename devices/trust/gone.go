package trust

import (
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/hallway-home/hallway/devices"
)

// WasRemoved reports whether a device that once had this slug was removed from the home.
// A slug is made of the name at admission and perhaps a number, and never given anew.
func (l *Log) WasRemoved(slug string) bool {
	r := l.Roster()
	if r == nil || slug == "" {
		return false
	}
	base := slug
	if i := strings.LastIndexByte(slug, '-'); i > 0 {
		if _, err := strconv.Atoi(slug[i+1:]); err == nil {
			base = slug[:i]
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.base != nil {
		for _, x := range l.base.state.Removed {
			if s := Slugify(x.Name); s == slug || s == base {
				return true
			}
		}
	}
	for _, p := range l.edits {
		e := p.edit
		if len(e.Key) == 0 || !r.Removed[nodeOf(e.Key)] {
			continue
		}
		if s := Slugify(e.Name); s == slug || s == base {
			return true
		}
	}
	return false
}

// nodeOf is devices.NodeIDOf for a key in its compressed form.
func nodeOf(key []byte) devices.NodeID {
	sum := sha256.Sum256(key)
	return devices.NodeID(sum[:16])
}
