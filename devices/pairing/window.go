package pairing

import (
	"bytes"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
)

const (
	// maxFailures close a window: 20 guesses at 10^8 codes.
	maxFailures = 20
	// DefaultOpen is how long a window stays open when nobody says otherwise.
	DefaultOpen = 3 * time.Minute
	// MaxOpen is the longest that a window may stay open.
	MaxOpen = 15 * time.Minute
	// exchangeTime bounds one exchange.
	exchangeTime = 60 * time.Second
	// silentTime bounds how long a stranger may be connected without a word, shareTime
	// how long a prover may stretch the code: 100,000 rounds take some seconds on MIPS.
	silentTime, shareTime = 5 * time.Second, 20 * time.Second
	// NamingTime bounds how long a proven device waits until a person has named it: as long as
	// the window would have been open.
	NamingTime = DefaultOpen
	saltLen    = 32
)

// What a person may run into while pairing.
var (
	ErrWrongCode = errors.New("the code is wrong, or this is not the device that shows it; read the code again from the device you want to add")
	ErrClosed    = errors.New("no window for adding devices is open there; open one (`hallway pair` on the new device, `hallway invite` on an owner) and try again")
	ErrGuessing  = errors.New("the window was closed after 20 wrong codes; open a new one")
	ErrBusy      = errors.New("another device is being added there right now; try again in a minute")
	ErrAborted   = errors.New("the connection ended during pairing; nothing was changed, try again")
)

// Window is an open invitation to pair, made by a person's act. Its failures are on disk
// before any answer leaves, so switching it off and on gains a guesser nothing.
type Window struct {
	store *devices.Store
	now   func() time.Time

	mu   sync.Mutex
	w    windowState
	busy bool
	done chan struct{}
}

// windowState is what survives a restart; it does not hold the secret.
type windowState struct {
	ID       []byte    `cbor:"1,keyasint"`
	Salt     []byte    `cbor:"2,keyasint"`
	W0       []byte    `cbor:"3,keyasint"`
	L        []byte    `cbor:"4,keyasint"`
	Failures int       `cbor:"5,keyasint"`
	Until    time.Time `cbor:"6,keyasint"`
	// Open is how long the window was meant to be open: a clock that was set back, or a
	// device without one that starts in 1970 again, must not make it longer.
	Open time.Duration `cbor:"7,keyasint"`
}

const windowKey = "window"

// OpenWindow opens a window for a secret (a Code or a Token's Secret); it replaces
// an older one.
func OpenWindow(store *devices.Store, secret string, open time.Duration) (*Window, error) {
	if open <= 0 {
		open = DefaultOpen
	}
	open = min(open, MaxOpen)
	salt, id := make([]byte, saltLen), make([]byte, 16)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	_, _ = rand.Read(id)
	w0, w1, err := scalars(secret, salt)
	if err != nil {
		return nil, err
	}
	l, err := registration(w1)
	if err != nil {
		return nil, err
	}
	w := &Window{store: store, now: time.Now, done: make(chan struct{})}
	w.w = windowState{ID: id, Salt: salt, W0: w0, L: l, Until: time.Now().Add(open), Open: open}
	return w, w.save("pairing.open", true)
}

// RestoreWindow finds the window that was open before a restart; nil if there is none.
func RestoreWindow(store *devices.Store) (*Window, error) {
	var b []byte
	if err := store.View(func(tx devices.Tx) error { b = tx.Get(devices.BucketPairing, windowKey); return nil }); err != nil || b == nil {
		return nil, err
	}
	w := &Window{store: store, now: time.Now, done: make(chan struct{})}
	err := decMode.Unmarshal(b, &w.w)
	if err != nil || w.Err() != nil || w.w.Until.Sub(w.now()) > w.w.Open {
		return nil, w.Close() // no invitation outlives a doubt; the person opens another
	}
	return w, nil
}

// save stores the state. Unless it is a new window, it must still be the one that is
// stored: an exchange with a replaced window must not bring that one back.
func (w *Window) save(point string, fresh bool) error {
	b, err := cbor.Marshal(w.w)
	if err != nil {
		return err
	}
	return w.store.Update(point, func(tx devices.Tx) error {
		if !fresh && !w.stored(tx) {
			return ErrClosed
		}
		return tx.Put(devices.BucketPairing, windowKey, b)
	})
}

// stored reports whether the store holds this window and not a later one.
func (w *Window) stored(tx devices.Tx) bool {
	var other windowState
	return decMode.Unmarshal(tx.Get(devices.BucketPairing, windowKey), &other) == nil && bytes.Equal(other.ID, w.w.ID)
}

// Until is when the window closes by itself.
func (w *Window) Until() time.Time { return w.w.Until }

// Done is closed when the window is.
func (w *Window) Done() <-chan struct{} { return w.done }

// Err says why the window takes no exchange, or nil.
func (w *Window) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err()
}

func (w *Window) err() error {
	if w.w.Failures >= maxFailures { // check: code limit
		return ErrGuessing
	}
	select {
	case <-w.done:
		return ErrClosed
	default:
	}
	if !w.now().Before(w.w.Until) {
		return ErrClosed
	}
	return nil
}

// Close ends the window.
func (w *Window) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
		return nil
	default:
		close(w.done)
	}
	return w.store.Update("pairing.close", func(tx devices.Tx) error {
		if len(w.w.ID) > 0 && !w.stored(tx) {
			return nil // a later window stands there
		}
		return tx.Delete(devices.BucketPairing, windowKey)
	})
}

// begin takes the one place for an exchange.
func (w *Window) begin() (release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.err(); err != nil {
		return nil, err
	}
	if w.busy {
		return nil, ErrBusy
	}
	w.busy = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy = false
	}, nil
}

// attempt counts a guess as failed, durably, before its answer leaves; only success
// takes it back, by closing the window.
func (w *Window) attempt() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.err(); err != nil {
		return err
	}
	w.w.Failures++
	return w.save("pairing.attempt", false)
}

// failed ends the window when that was the last guess; the count on disk keeps it shut.
func (w *Window) failed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w.Failures < maxFailures {
		return
	}
	select {
	case <-w.done:
	default:
		close(w.done)
	}
}

// won takes the count of the guess that was right back and closes the window.
func (w *Window) won() error {
	w.mu.Lock()
	w.w.Failures--
	w.mu.Unlock()
	return w.Close()
}
