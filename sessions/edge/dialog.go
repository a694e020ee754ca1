package edge

import (
	"context"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
)

// end is one side of a call that passes through here: a page of this node, or a member.
type end struct {
	tab    *tab
	node   devices.NodeID
	tag    string
	name   string  // display name
	uri    sip.Uri // of its From or To
	target sip.Uri // its Contact
	seq    uint32  // of its last request; guarded by Edge.mu, like what follows

	goneSince time.Time
}

// dialog is a call that passes through here.
type dialog struct {
	callID string
	ends   [2]end
	sound  bool // was offered
	over   bool // guarded by Edge.mu
}

// dialogKey is how one side names a dialog (RFC 3261 section 12).
type dialogKey struct{ callID, from, to string }

func (d *dialog) key(i int) dialogKey {
	return dialogKey{d.callID, d.ends[i].tag, d.ends[1-i].tag}
}

// find returns the dialog of a request, and which of its ends sent it.
func (e *Edge) find(req *sip.Request) (*dialog, int) {
	from, _ := req.From().Params.Get("tag")
	to, _ := req.To().Params.Get("tag")
	key := dialogKey{req.CallID().Value(), from, to}
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.dialogs[key]
	if d == nil {
		return nil, 0
	}
	if d.key(0) == key {
		return d, 0
	}
	return d, 1
}

// begin remembers a dialog; false when there are too many.
func (e *Edge) begin(d *dialog) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped || len(e.dialogs) >= 2*maxDialogs {
		return false
	}
	e.dialogs[d.key(0)], e.dialogs[d.key(1)] = d, d
	return true
}

// forget ends a dialog here; it reports false if that was done.
func (e *Edge) forget(d *dialog) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.over {
		return false
	}
	d.over = true
	delete(e.dialogs, d.key(0))
	delete(e.dialogs, d.key(1))
	return true
}

func (e *Edge) all() []*dialog {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*dialog
	for k, d := range e.dialogs {
		if k == d.key(0) {
			out = append(out, d)
		}
	}
	return out
}

// end tells both sides of a call, but not the one that is gone, that it has ended.
func (e *Edge) end(d *dialog, gone *end, why sip.Header) {
	if !e.forget(d) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), byeTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range d.ends {
		if &d.ends[i] == gone {
			continue
		}
		e.mu.Lock()
		d.ends[1-i].seq++
		seq := d.ends[1-i].seq
		e.mu.Unlock()
		wg.Go(func() { e.bye(ctx, d.callID, &d.ends[1-i], &d.ends[i], seq, why) })
	}
	wg.Wait()
}

// bye ends a dialog at one of its sides, in the name of the other.
func (e *Edge) bye(ctx context.Context, callID string, from, to *end, seq uint32, why sip.Header) {
	dest, err := e.destination(ctx, to)
	if err != nil {
		e.log.Debug("one side of a call cannot be told that it ended", "err", err)
		return
	}
	req := e.request(sip.BYE, callID, from, to, seq)
	req.AppendHeader(sip.HeaderClone(why))
	req.SetDestination(dest)
	if err := e.agent.Relay(ctx, req, nil, func(*sip.Response) {}); err != nil {
		e.log.Debug("one side of a call did not confirm its end", "err", err)
	}
}

// request makes one of a dialog, as one side would.
func (e *Edge) request(method sip.RequestMethod, callID string, from, to *end, seq uint32) *sip.Request {
	req := sip.NewRequest(method, *to.target.Clone())
	req.AppendHeader(e.agent.NewVia())
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	req.AppendHeader(&sip.FromHeader{DisplayName: from.name, Address: from.uri, Params: sip.HeaderParams{{K: "tag", V: from.tag}}})
	req.AppendHeader(&sip.ToHeader{DisplayName: to.name, Address: to.uri, Params: sip.HeaderParams{{K: "tag", V: to.tag}}})
	id := sip.CallIDHeader(callID)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	req.SetBody(nil)
	req.SetTransport(transport)
	return req
}

// transport is what the SIP library calls all flows.
const transport = "TLS"

var errGone = sessions.Refusal(480, "Temporarily Unavailable")

// destination is where requests to one side go now.
func (e *Edge) destination(ctx context.Context, to *end) (string, error) {
	if to.tab == nil {
		return e.agent.Addr(to.node), e.agent.Reach(ctx, to.node)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if to.tab.flow == nil {
		return "", errGone
	}
	return to.tab.flow.remote.String(), nil
}
