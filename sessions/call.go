package sessions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Call is the set of dialogs that people see as one call.
type Call struct {
	a  *Agent
	id string // the caller's half of the Session-ID

	ctx    context.Context // ends with the call
	cancel context.CancelFunc

	as devices.Device // who is called here: this device, or a foreign one; zero for calls from here

	preview string           // of a call from here that shows its picture while it rings: the token
	rings   []devices.NodeID // of a call from here: where each branch rings
	of      *Call            // the ringing call whose picture this one shows; people see nothing of it

	changing chan struct{} // holds one token while an offer of either side waits for its answer

	mu         sync.Mutex
	info       CallInfo
	dialog     *dialog // the one that won, or the incoming one
	incoming   *incoming
	goneSince  time.Time
	restarting bool // the path is lost and not found again yet
	unsaid     bool // a change that the other side could not be told
	troubles   troubles
	agreed     int          // offers and answers finished after the first
	wish       Wish         // of this side
	first      []MediaState // as first agreed: what is missing later was taken away by somebody
	over       bool
	freed      chan struct{} // closed when camera and microphone are free
}

// ending is why and how a call ends.
type ending struct {
	code   int
	words  string
	bye    bool // the other side must be told
	missed bool

	takenBy string // slug of the device or person that was quicker
}

// unanswered is the status of an INVITE whose call ends before anybody decided: 487 when
// the caller ended it (RFC 3261 section 15.1.2), else 503.
func (e ending) unanswered() int {
	if e.code == statusOK && !e.bye {
		return statusCancelled
	}
	return sip.StatusServiceUnavailable
}

func (a *Agent) newCall(id, direction string, state State, from, to devices.AOR) *Call {
	c := &Call{
		a: a, id: id, changing: make(chan struct{}, 1), troubles: troubles{}, freed: make(chan struct{}),
		info: CallInfo{ID: id, Direction: direction, State: state, From: from, To: to, Started: time.Now()},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// ID names the call on both sides.
func (c *Call) ID() string { return c.id }

// Done is closed when the call has ended and camera and microphone are free.
func (c *Call) Done() <-chan struct{} { return c.freed }

func (c *Call) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// Info is the call as it is now.
func (c *Call) Info() CallInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := c.info
	info.Branches, info.Trouble = slices.Clone(info.Branches), slices.Clone(info.Trouble)
	if c.dialog != nil && c.dialog.leg != nil && info.State == StateActive {
		info.Media, info.Stats = c.dialog.leg.Media(), c.dialog.leg.Stats()
	}
	return info
}

// change edits the visible state and tells the watchers.
func (c *Call) change(f func(*CallInfo)) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	f(&c.info)
	c.mu.Unlock()
	c.a.tell(c.Info())
}

// establish makes d the dialog of the call and opens the media. It reports false when
// the call has ended or another device was quicker.
func (c *Call) establish(d *dialog) bool {
	c.mu.Lock()
	if c.over || c.dialog != nil && c.dialog != d {
		c.mu.Unlock()
		return false
	}
	c.dialog, d.established = d, true
	c.info.State, c.info.Answered, c.info.Peer = StateActive, time.Now(), d.device.Slug
	c.mu.Unlock()
	c.a.mu.Lock()
	c.a.dialogs[d.key()] = c
	c.a.mu.Unlock()
	c.endPreviews()
	return true
}

// open starts the media of an established call and watches it.
func (c *Call) open(d *dialog) {
	if err := d.leg.Start(c.ctx); err != nil {
		c.finish(ending{code: 500, words: err.Error(), bye: true})
		return
	}
	c.mu.Lock()
	c.first = d.leg.Media()
	if directionOf(c.first, "video") == profiles.Inactive && c.wish.Video != profiles.RecvOnly { // check: own camera
		// It began as sound alone. What the other side adds is shown; the camera here opens
		// only when a person at this side wants it.
		c.wish.Video = profiles.RecvOnly
		d.leg.SetWish(c.wish)
	}
	c.mu.Unlock()
	c.a.tell(c.Info())
	c.a.spawn(func() { c.watch(d) })
}

func mediaWords(err error) string {
	if err == nil {
		err = ErrMediaFailed
	}
	return callEnded + err.Error() + "."
}

const callEnded = "The call ended: "

// finish is the one way in which every call ends: it frees camera and microphone,
// settles all dialogs and tells the watchers. Only the first call of it counts.
func (c *Call) finish(e ending) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.over = true
	if d := c.dialog; d != nil && d.leg != nil && c.info.State == StateActive {
		c.info.Media, c.info.Stats = d.leg.Media(), d.leg.Stats()
	}
	c.info.State, c.info.Ended, c.info.Code, c.info.Reason, c.info.Missed = StateEnded, time.Now(), e.code, e.words, e.missed
	c.info.TakenBy = e.takenBy
	d, in := c.dialog, c.incoming
	c.info.Trouble = nil
	c.dialog, c.incoming = nil, nil // the history keeps what people see, not two megabytes of media
	tell := e.bye && d != nil && d.established && !d.direct(c.a)
	c.mu.Unlock()
	c.cancel() // ends branches that still ring
	c.endPreviews()
	if in != nil {
		in.settle(e)
	}
	if d != nil {
		if d.leg != nil {
			if err := d.leg.Close(); err != nil {
				c.a.log.Warn("closing media", "call", c.id, "err", err)
			}
		}
		c.a.mu.Lock()
		delete(c.a.dialogs, d.key())
		c.a.mu.Unlock()
	}
	close(c.freed)
	if c.of != nil {
		c.a.drop(c)
	}
	c.a.log.Info("call ended", "call", c.id, "reason", e.words)
	c.a.tell(c.Info())
	if tell {
		var why sip.Header
		if e.code >= 400 {
			why = reasonHeader(e.code, e.words)
		}
		if !c.a.spawn(func() { c.a.bye(d, why) }) {
			c.a.bye(d, why) // the agent is stopping: say it before the flows go
		}
	}
}

const (
	// byeTime bounds how long the end of a call is told for; nobody waits for the answer.
	byeTime = 2 * time.Second
	// byeTries: the first BYE may be lost in a flow that just died while the next one stands.
	byeTries, byePause = 3, 50 * time.Millisecond
)

// bye ends a dialog at the other side.
func (a *Agent) bye(d *dialog, reason sip.Header) {
	ctx, cancel := context.WithTimeout(context.Background(), byeTime)
	defer cancel()
	var err error
	for range byeTries {
		if err = a.reach(ctx, d.peer); err != nil {
			break
		}
		req := a.request(sip.BYE, d, d.nextSeq())
		if reason != nil {
			req.AppendHeader(sip.HeaderClone(reason))
		}
		if _, err = a.roundTrip(ctx, req); err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(byePause):
		}
	}
	a.log.Debug("the other side cannot be told that the call ended; its media will notice", "peer", d.device.Slug, "err", err)
}

// roundTrip sends a request that is no INVITE and waits for its final response.
func (a *Agent) roundTrip(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	branch := branchOf(req.Via())
	a.gate.own(branch, req.Destination())
	defer a.gate.free(branch)
	tx, err := a.txl.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	defer tx.Terminate()
	for {
		select {
		case res := <-tx.Responses():
			a.gate.leave(res, res.Source(), res.CallID())
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			return nil, errors.Join(errNoDial, tx.Err())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
