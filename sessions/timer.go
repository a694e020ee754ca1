package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// defaultExpires is the interval that RFC 4028 section 4 recommends.
	defaultExpires = 30 * time.Minute
	// defaultMinSE is the least that RFC 4028 section 5 allows: shorter ones are an attack on
	// the battery of others.
	defaultMinSE = 90 * time.Second
	// maxExpires bounds what a peer can ask for; a longer interval would watch over nothing.
	maxExpires = 24 * time.Hour
	// refreshPause is between attempts to refresh; the end of the interval ends them.
	refreshPause = 2 * time.Second
)

// sessionTimer is RFC 4028: a session that nobody refreshes ends, so that a peer which
// forgot the call without a word leaves no open microphone behind. The zero value is a
// session without a timer.
type sessionTimer struct {
	interval time.Duration
	ours     bool // this side refreshes
	since    time.Time
}

// refreshAt is half of the interval, expireAt shortly before its end (RFC 4028 section 10).
func (t sessionTimer) refreshAt() time.Time { return t.since.Add(t.interval / 2) }
func (t sessionTimer) expireAt() time.Time {
	return t.since.Add(t.interval - min(32*time.Second, t.interval/3))
}

// next is when something is due; false without a timer.
func (t sessionTimer) next() (time.Time, bool) {
	if t.ours {
		return t.refreshAt(), t.interval > 0
	}
	return t.expireAt(), t.interval > 0
}

// seconds reads a header of delta-seconds with parameters (RFC 4028 sections 4 and 5).
func seconds(value string) (d time.Duration, params string, ok bool) {
	n, params, _ := strings.Cut(value, ";")
	s, err := strconv.ParseUint(strings.TrimSpace(n), 10, 32)
	return min(time.Duration(s)*time.Second, maxExpires), params, err == nil && s > 0
}

type headed interface{ GetHeader(string) sip.Header }

func headerOf(m headed, names ...string) string {
	for _, n := range names {
		if h := m.GetHeader(n); h != nil {
			return h.Value()
		}
	}
	return ""
}

func refresherOf(params string) string {
	for p := range strings.SplitSeq(params, ";") {
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(p)), "refresher="); ok {
			return v
		}
	}
	return ""
}

// supports reports whether a message lists an option tag.
func supports(m headed, tag string) bool {
	return slices.Contains(strings.FieldsFunc(strings.ToLower(headerOf(m, "Supported", "k")), func(r rune) bool { return r == ',' || r == ' ' }), tag)
}

// timerOf reads what a 2xx agreed on; caller says that the request was ours.
func timerOf(m headed, caller bool) sessionTimer {
	interval, params, ok := seconds(headerOf(m, "Session-Expires", "x"))
	if !ok {
		return sessionTimer{}
	}
	return sessionTimer{interval: interval, ours: (refresherOf(params) == "uac") == caller, since: time.Now()}
}

// offerTimer adds what a UAC says (RFC 4028 section 7.1).
func (a *Agent) offerTimer(req *sip.Request, interval, minSE time.Duration, refresher string) {
	req.AppendHeader(sip.NewHeader("Supported", "timer"))
	req.AppendHeader(sip.NewHeader("Allow", strings.Join(methods(), ", ")))
	req.AppendHeader(sip.NewHeader("Session-Expires", fmt.Sprintf("%d;refresher=%s", int(interval.Seconds()), refresher)))
	if m := max(minSE, a.cfg.MinSE); m > 0 {
		req.AppendHeader(sip.NewHeader("Min-SE", strconv.Itoa(int(m.Seconds()))))
	}
}

// answerTimer decides as UAS (RFC 4028 section 9). The error is the 422.
func (a *Agent) answerTimer(req *sip.Request) (t sessionTimer, refresher string, err error) {
	asked, params, ok := seconds(headerOf(req, "Session-Expires", "x"))
	if !ok {
		return t, "", nil
	}
	able := supports(req, "timer")
	if asked < a.cfg.MinSE && able {
		return t, "", refusal{statusInterval, "Session Interval Too Small"}
	}
	least, _, _ := seconds(headerOf(req, "Min-SE"))
	refresher = refresherOf(params)
	if refresher != "uas" && refresher != "uac" {
		refresher = "uac"
	}
	if !able {
		refresher = "uas"
	}
	return sessionTimer{interval: min(asked, max(a.cfg.SessionExpires, least)), ours: refresher == "uas", since: time.Now()}, refresher, nil
}

// sayTimer puts a decision of answerTimer into the 2xx.
func sayTimer(res *sip.Response, t sessionTimer, refresher string) {
	if t.interval == 0 {
		return
	}
	res.AppendHeader(sip.NewHeader("Session-Expires", fmt.Sprintf("%d;refresher=%s", int(t.interval.Seconds()), refresher)))
	if refresher == "uac" {
		res.AppendHeader(sip.NewHeader("Require", "timer"))
	}
}

// raise takes the least interval that a 422 names; false if it names none.
func (d *dialog) raise(res *sip.Response) bool {
	least, _, ok := seconds(headerOf(res, "Min-SE"))
	if ok {
		d.minSE = max(d.minSE, least)
	}
	return ok
}

// interval is what this side asks for.
func (c *Call) interval(d *dialog) time.Duration {
	return max(c.a.cfg.SessionExpires, d.minSE)
}

// timed starts the interval anew.
func (c *Call) timed(d *dialog, t sessionTimer) {
	c.mu.Lock()
	d.timer = t
	c.mu.Unlock()
	select {
	case d.refreshed <- struct{}{}:
	default:
	}
}

func (c *Call) timer(d *dialog) sessionTimer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.timer
}

// due refreshes the session, or ends it; it returns when to look again.
func (c *Call) due(d *dialog) {
	t := c.timer(d)
	now := time.Now()
	if t.interval == 0 || t.ours && now.Before(t.refreshAt()) || !t.ours && now.Before(t.expireAt()) {
		return
	}
	if !t.ours || !now.Before(t.expireAt()) {
		c.finish(ending{code: sip.StatusRequestTimeout, words: d.device.Name + " did not confirm in time that the call still runs.", bye: true})
		return
	}
	ctx, cancel := context.WithDeadline(c.ctx, t.expireAt())
	defer cancel()
	if err := c.refresh(ctx, d); err != nil && !errors.Is(err, errNoDialog) {
		c.a.log.Debug("the call is not confirmed yet", "call", c.id, "peer", d.device.Slug, "err", err)
	}
}

// refresh is an UPDATE without an offer (RFC 4028 section 7.4), which disturbs no media.
func (c *Call) refresh(ctx context.Context, d *dialog) error {
	ctx, cancel := context.WithTimeout(ctx, reofferTime)
	defer cancel()
	if err := c.a.reach(ctx, d.peer); err != nil {
		return err
	}
	_, _, err := c.inDialog(ctx, sip.UPDATE, d, nil)
	return err
}

// wait says how long the watcher of a call sleeps.
func (t sessionTimer) wait() time.Duration {
	at, ok := t.next()
	if !ok {
		return time.Hour
	}
	if d := time.Until(at); d > 0 {
		return d
	}
	return max(0, min(refreshPause, t.interval/8))
}
