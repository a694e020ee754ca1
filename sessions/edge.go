package sessions

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Edge answers for phones that are connected to this node; sessions/edge is one. Its flows
// share the transport of members, each under an address of its own that is no member's.
type Edge interface {
	// Take is asked first about each valid request; false leaves it to the agent.
	Take(*sip.Request, *sip.ServerTx) bool
	// Review is called once a second: what has been gone for too long ends.
	Review(now time.Time)
	// Stop ends what goes on; flows still stand.
	Stop()
}

const (
	// bindingWait: a phone's binding comes over another flow than its first call.
	bindingWait = time.Second
	// cancelWait is how long the 487 of a cancelled INVITE is waited for (RFC 3261 section 9.1).
	cancelWait = 5 * time.Second
)

// SetEdge must be called before Run.
func (a *Agent) SetEdge(e Edge) { a.edge = e }

// Resolver is the directory as it is now.
func (a *Agent) Resolver() Resolver { return a.cfg.Resolver() }

// Peer is the member that sent a request.
func (a *Agent) Peer(req *sip.Request) (devices.NodeID, bool) {
	return a.cfg.Flows.PeerByAddr(req.Source())
}

// Addr is where requests for a member are sent, this node included.
func (a *Agent) Addr(id devices.NodeID) string { return a.cfg.Flows.Addr(id).String() }

// HasFlow reports whether a member can be sent to now.
func (a *Agent) HasFlow(id devices.NodeID) bool {
	return id == a.cfg.Self || a.cfg.Flows.HasSIP(id)
}

// Reach returns once requests to a member will find its flow.
func (a *Agent) Reach(ctx context.Context, id devices.NodeID) error { return a.reach(ctx, id) }

// Spawn runs f as a goroutine that Run waits for. It reports false after the end.
func (a *Agent) Spawn(f func()) bool { return a.spawn(f) }

// Refuse answers a request with what an error means.
func (a *Agent) Refuse(req *sip.Request, tx *sip.ServerTx, err error) { a.refuse(req, tx, err) }

// Release forgets a request that was answered.
func (a *Agent) Release(req *sip.Request) { a.gate.free(taken(req)) }

// Refusal is an error with a SIP status and its words.
func Refusal(code int, words string) error { return refusal{code, words} }

// StatusOf maps an error to its SIP status and words.
func StatusOf(err error) (int, string) { return statusOf(err) }

// Better reports whether a status tells a caller more than another.
func Better(a, b int) bool { return rank(a) < rank(b) }

// ReasonGone is what those hear who accept a call that nobody waits for any more.
func ReasonGone() sip.Header { return reasonHeader(statusCancelled, "The caller is gone.") }

// Reason is a Reason header (RFC 3326).
func Reason(code int, text string) sip.Header { return reasonHeader(code, text) }

// Caller says who a member's request is from, or refuses it; it also bounds how often.
func (a *Agent) Caller(req *sip.Request, peer devices.NodeID) (devices.Device, error) {
	d, err := a.mayClaim(req, peer)
	if err == nil && !a.mayInvite(peer) {
		err = refusal{statusBusy, "Too Many Calls"}
	}
	return d, err
}

// MayInvite bounds how often somebody calls: a member, or a phone by its ID.
func (a *Agent) MayInvite(id devices.NodeID) bool { return a.mayInvite(id) }

// Ring lists the devices behind a name that share sound or picture with a caller, as a call
// from this device would choose them.
func Ring(mine profiles.Capabilities, res devices.Resolution) []devices.Device {
	var out []devices.Device
	for _, b := range choose(mine, whoRings(res)) {
		if !b.match.Empty() {
			out = append(out, b.device)
		}
	}
	return out
}

// PhonesURI means the phones of a person at the node that is asked, where its name alone
// could mean the node's own device, too (a GRUU, RFC 5627).
func PhonesURI(person devices.AOR) sip.Uri {
	u := uri(person)
	u.UriParams = sip.HeaderParams{{K: "gr", V: phonesParam}}
	return u
}

// PhoneURI means one phone of a person at the node that is asked: it was woken after the others began to ring.
func PhoneURI(person devices.AOR, phone devices.NodeID) sip.Uri {
	u := uri(person)
	u.UriParams = sip.HeaderParams{{K: "gr", V: phoneParam + phone.String()}}
	return u
}

const phonesParam, phoneParam = "phones", "phone-"

// MeansPhones reports whether a URI was made by PhonesURI or PhoneURI; only is the phone that the latter means.
func MeansPhones(u sip.Uri) (only devices.NodeID, ok bool) {
	v, _ := u.UriParams.Get("gr")
	if v == phonesParam {
		return only, true
	}
	name, one := strings.CutPrefix(v, phoneParam)
	if !one {
		return only, false
	}
	only, err := devices.ParseNodeID(name)
	return only, err == nil
}

// Wake tells phones whose page is closed that somebody calls, and gives each as it comes (Config.Wake). The channel
// is nil when there is nobody to wake; else it is closed in the end.
func (a *Agent) Wake(ctx context.Context, caller devices.Device, phones []devices.NodeID) <-chan devices.Device {
	if a.cfg.Wake == nil || len(phones) == 0 {
		return nil
	}
	return a.cfg.Wake(ctx, caller, phones)
}

// Wakes reports whether behind a name there is somebody to wake.
func (a *Agent) Wakes(res devices.Resolution) bool { return a.cfg.Wake != nil && len(res.Asleep) > 0 }

// AppendSession names a call that its phone did not name (RFC 7989 section 5).
func AppendSession(req *sip.Request) {
	if sessionOf(req) == "" {
		req.AppendHeader(sessionHeader(token(16), ""))
	}
}

// NewVia is a Via of this node for a new transaction.
func (a *Agent) NewVia() *sip.ViaHeader {
	params := sip.NewParams()
	params.Add("branch", "z9hG4bK"+token(12))
	addr := a.cfg.Flows.Addr(a.cfg.Self)
	return &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: "TLS",
		Host: "[" + addr.Addr().String() + "]", Port: int(addr.Port()), Params: params,
	}
}

// Write sends a request without a transaction: an ACK.
func (a *Agent) Write(req *sip.Request) error { return a.tpl.WriteMsg(req) }

// Relay runs the client transaction of req, which has its destination, and hands every
// response to on, the final one last. When ctx ends an INVITE is cancelled, with reason()
// if that is not nil, and its 487 awaited for a while (RFC 3261 section 9.1).
func (a *Agent) Relay(ctx context.Context, req *sip.Request, reason func() sip.Header, on func(*sip.Response)) error {
	br := branchOf(req.Via())
	a.gate.own(br, req.Destination())
	defer a.gate.free(br)
	tx, err := a.txl.Request(context.Background(), req)
	if err != nil {
		return err
	}
	defer tx.Terminate()
	stop, cancelled, provisional := ctx.Done(), false, false
	for {
		select {
		case res := <-tx.Responses():
			a.gate.leave(res, res.Source(), res.CallID())
			on(res)
			if !res.IsProvisional() {
				return nil
			}
			provisional = true
			if cancelled {
				a.cancelInvite(req, reason())
			}
		case <-tx.Done():
			return errors.Join(errNoDial, tx.Err())
		case <-stop:
			if req.Method != sip.INVITE {
				return ctx.Err()
			}
			stop, cancelled = nil, true
			if provisional {
				a.cancelInvite(req, reason())
			}
			t := time.AfterFunc(cancelWait, tx.Terminate)
			defer t.Stop()
		}
	}
}

// cancelInvite is RFC 3261 section 9.1.
func (a *Agent) cancelInvite(inv *sip.Request, reason sip.Header) {
	req := sip.NewRequest(sip.CANCEL, *inv.Recipient.Clone())
	req.AppendHeader(inv.Via().Clone())
	for _, h := range []string{"Max-Forwards", "From", "To", "Call-ID"} {
		req.AppendHeader(sip.HeaderClone(inv.GetHeader(h)))
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: inv.CSeq().SeqNo, MethodName: sip.CANCEL})
	if reason != nil {
		req.AppendHeader(reason)
	}
	req.SetBody(nil)
	req.SetTransport("TLS")
	req.SetDestination(inv.Destination())
	a.spawn(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		tx, err := a.txl.Request(ctx, req)
		if err != nil {
			return
		}
		defer tx.Terminate()
		select {
		case res := <-tx.Responses():
			a.gate.leave(res, res.Source(), res.CallID())
		case <-tx.Done():
		case <-ctx.Done():
		}
	})
}

// awaitPhone finds the phone that a request of a member comes from. Its binding may still be
// on its way, for a person that the home has.
func (a *Agent) awaitPhone(person string, node devices.NodeID, sdp []byte) (devices.Device, bool) {
	for end := time.Now().Add(bindingWait); ; time.Sleep(5 * time.Millisecond) {
		r, ok := a.cfg.Resolver().Resolve(person)
		if !ok || r.Kind != devices.KindPerson {
			return devices.Device{}, false
		}
		if d, ok := a.phoneOf(person, node, sdp); ok || time.Now().After(end) {
			return d, ok
		}
	}
}

// phoneOf finds the phone of a person whose signed binding names the node and holds every
// fingerprint of the description. Without a description the person's phones there are meant.
func (a *Agent) phoneOf(person string, node devices.NodeID, sdp []byte) (devices.Device, bool) {
	r, ok := a.cfg.Resolver().Resolve(person)
	if !ok {
		return devices.Device{}, false
	}
	for _, d := range r.Devices {
		if d.Person != person || d.Node != node {
			continue
		}
		if len(sdp) == 0 {
			return d, true
		}
		for _, p := range d.Phones {
			if HoldsFingerprints(sdp, p.Fingerprints) { // check: fingerprints of a phone
				d.Phones = []devices.BoundPhone{p}
				return d, true
			}
		}
	}
	return devices.Device{}, false
}

// hasPhones reports whether one of the phones of a row is still one; true for other rows.
func (a *Agent) hasPhones(d devices.Device) bool {
	for _, p := range d.Phones {
		if a.cfg.Resolver().HasPhone(p.ID) {
			return true
		}
	}
	return d.Person == ""
}

// HoldsFingerprints reports whether a description has fingerprints, and all of them are among
// the given ones, which are SHA-256 (RFC 8122).
func HoldsFingerprints(sdp []byte, known [][]byte) bool {
	found := false
	for line := range bytes.Lines(sdp) {
		value, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "a=fingerprint:")
		if !ok {
			continue
		}
		hash, digits, _ := strings.Cut(value, " ")
		sum, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
		if err != nil || !strings.EqualFold(hash, "sha-256") {
			return false
		}
		found = false
		for _, k := range known {
			found = found || bytes.Equal(k, sum)
		}
		if !found {
			return false
		}
	}
	return found
}

// doorway hands connections that are made here to the SIP library.
type doorway struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newDoorway() *doorway {
	return &doorway{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (d *doorway) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *doorway) Close() error { d.once.Do(func() { close(d.done) }); return nil }

// Addr implements net.Listener; nothing listens there.
func (d *doorway) Addr() net.Addr { return &net.TCPAddr{} }

// Adopt hands a flow to the SIP library, which closes it at the end. Its addresses must be
// its own: requests from it have the remote one as their source.
func (a *Agent) Adopt(ctx context.Context, c net.Conn) error {
	select {
	case a.adopted.conns <- c:
		return nil
	case <-a.adopted.done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Forget drops what was kept of the address of a flow that ended.
func (a *Agent) Forget(addr string) { a.gate.forget(addr) }

// here is one end of the flow from this node to itself.
type here struct {
	net.Conn
	local, remote net.Addr
}

// Read names the end as the SIP library expects it.
func (h here) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = net.ErrClosed
	}
	return n, err
}

func (h here) LocalAddr() net.Addr  { return h.local }
func (h here) RemoteAddr() net.Addr { return h.remote }

// reachSelf makes a flow from this node to itself, over which its phones and its own device
// call each other as they call everybody. Requests go one way, responses the other.
func (a *Agent) reachSelf() {
	if a.edge == nil {
		return
	}
	self := a.cfg.Flows.Addr(a.cfg.Self)
	at := func(port uint16) net.Addr {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(self.Addr(), port))
	}
	x, y := net.Pipe()
	for _, c := range []net.Conn{here{x, at(1), net.TCPAddrFromAddrPort(self)}, here{y, at(2), at(3)}} {
		if err := a.Adopt(a.ctx, c); err != nil {
			_ = c.Close()
		}
	}
}
