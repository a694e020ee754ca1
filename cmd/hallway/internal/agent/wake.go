package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/push"
	"github.com/hallway-home/hallway/devices"
)

const (
	// wakeTime is how long a call waits for phones that were told of it: a person hears it, finds
	// the phone, unlocks it and taps, and the page loads.
	wakeTime = 45 * time.Second
	// wakeEvery: a phone is told once in this time, however many call it.
	wakeEvery = 3 * time.Second
	// wakeHelpers is how many other devices are asked to tell a phone when this one cannot.
	wakeHelpers = 3
)

// wakes tells phones whose page is closed that somebody calls.
type wakes struct {
	sender *push.Sender

	mu   sync.Mutex
	told map[devices.NodeID]time.Time // when a phone was told last
}

// wakeQuestion asks another node to tell a phone: the one that calls has no way to the Internet.
type wakeQuestion struct {
	Phone devices.NodeID `json:"phone"`
}

type wakeReply struct {
	Ended bool   `json:"ended,omitempty"` // no device will have more luck
	Fault string `json:"fault,omitempty"`
}

func (a *Agent) openWakes() {
	a.wakes.sender, a.wakes.told = push.NewSender(a.cfg.Push, a.wakeClock), map[devices.NodeID]time.Time{}
}

// wakeClock is the home's time: this device may have begun in 1970.
func (a *Agent) wakeClock() time.Time {
	if now, known := a.homeTime(); known {
		return now
	}
	return time.Now()
}

// wake implements sessions.Config.Wake. Whom the caller may not call is not woken; who is asked then refuses.
func (a *Agent) wake(ctx context.Context, caller devices.Device, phones []devices.NodeID) <-chan devices.Device {
	out := make(chan devices.Device)
	roster := a.roster.Roster()
	phones = slices.DeleteFunc(slices.Clone(phones), func(id devices.NodeID) bool { return a.mayRing(caller, roster.Phones[id].Person) != nil })
	if len(phones) == 0 {
		close(out)
		return out
	}
	ok := a.sip.Spawn(func() {
		defer close(out)
		ctx, cancel := context.WithTimeout(ctx, wakeTime)
		defer cancel()
		a.awaitPhones(ctx, cancel, phones, out)
	})
	if !ok {
		close(out)
	}
	return out
}

// awaitPhones tells them, side by side, and hands on who comes. A phone that nobody could tell is
// not waited for once all others have come.
func (a *Agent) awaitPhones(ctx context.Context, enough context.CancelFunc, phones []devices.NodeID, out chan<- devices.Device) {
	feed := a.dir.Subscribe(ctx) // before anybody is told: a quick one is not missed
	lost := make(chan devices.NodeID)
	for _, id := range phones {
		a.sip.Spawn(func() {
			err := a.tellPhone(ctx, id)
			if err == nil {
				return
			}
			if ctx.Err() == nil {
				a.log.Warn("a phone could not be told that somebody calls", "phone", id, "err", err)
			}
			select {
			case lost <- id:
			case <-ctx.Done():
			}
		})
	}
	waits := slices.Clone(phones)
	forget := func(id devices.NodeID) {
		if waits = slices.DeleteFunc(waits, func(x devices.NodeID) bool { return x == id }); len(waits) == 0 {
			enough()
		}
	}
	for ctx.Err() == nil {
		s := a.dir.Snapshot()
		for _, id := range slices.Clone(waits) {
			if d, awake := s.Awake(id); awake {
				select {
				case out <- d:
				case <-ctx.Done():
				}
				forget(id)
			}
		}
		select {
		case <-ctx.Done():
		case id := <-lost:
			forget(id)
		case _, more := <-feed:
			if !more && ctx.Err() == nil {
				feed = a.dir.Subscribe(ctx)
			}
		}
	}
}

// tellPhone tells a phone from here or, where that cannot be, has another device do it.
func (a *Agent) tellPhone(ctx context.Context, phone devices.NodeID) error {
	err := a.push(ctx, phone)
	if err == nil || errors.Is(err, push.ErrEnded) {
		return err
	}
	a.log.Debug("a phone cannot be told from here", "phone", phone, "err", err)
	asked := 0
	for _, d := range a.dir.Snapshot().Devices {
		if d.Self || d.Status != devices.Reachable || asked == wakeHelpers {
			continue
		}
		asked++
		q, cancel := context.WithTimeout(ctx, relayTime)
		r, askErr := a.ask(q, d, question{Wake: &wakeQuestion{phone}})
		cancel()
		switch {
		case askErr != nil || r.Wake == nil: // an older one, or it is gone
		case r.Wake.Ended:
			return push.ErrEnded
		case r.Wake.Fault == "":
			return nil
		}
	}
	return err
}

// push tells a phone from here.
func (a *Agent) push(ctx context.Context, phone devices.NodeID) error {
	b, known := a.mesh.Bindings()[phone]
	if !known || b.Wake == nil || b.Quiet || !a.dir.Snapshot().HasPhone(phone) {
		return push.ErrEnded
	}
	if !a.mayTell(phone) {
		return nil // it was told a moment ago
	}
	err := a.wakes.sender.Send(ctx, *b.Wake)
	if err != nil {
		a.wakes.mu.Lock()
		delete(a.wakes.told, phone)
		a.wakes.mu.Unlock()
	}
	return err
}

// mayTell bounds how often a phone is told.
func (a *Agent) mayTell(phone devices.NodeID) bool {
	a.wakes.mu.Lock()
	defer a.wakes.mu.Unlock()
	now := time.Now()
	if last, ok := a.wakes.told[phone]; ok && now.Sub(last) < wakeEvery {
		return false
	}
	for id, last := range a.wakes.told {
		if now.Sub(last) > wakeEvery {
			delete(a.wakes.told, id)
		}
	}
	a.wakes.told[phone] = now
	return true
}

// answerWake tells a phone for another member.
func (a *Agent) answerWake(ctx context.Context, q wakeQuestion) *wakeReply {
	err := a.push(ctx, q.Phone)
	if err == nil {
		return &wakeReply{}
	}
	return &wakeReply{Ended: errors.Is(err, push.ErrEnded), Fault: err.Error()}
}
