package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/devices/trust/webca"
)

const (
	// webSoon and webLater: how often a node without a certificate asks the owners, and one with
	// a certificate looks whether it must be renewed or its files changed.
	webSoon, webLater = 2 * time.Second, 10 * time.Second
	// askTime bounds one question to an owner.
	askTime = 4 * time.Second
	// keyWebCA and keyWebLeaf are where the store keeps them.
	keyWebCA, keyWebLeaf = "web-ca", "web-leaf"
)

// webCerts is by what this node serves the companion.
type webCerts struct {
	shown atomic.Pointer[tls.Certificate]
	der   atomic.Pointer[[]byte] // of the authority that the roster names
	files string                 // size and time of the own files that are shown
	mu    sync.Mutex
	ca    *webca.CA // on owner nodes
}

// storedCert is a certificate with its key, and the authority above it.
type storedCert struct {
	CA   []byte `json:"ca"`
	Leaf []byte `json:"leaf,omitempty"`
	Key  []byte `json:"key"` // scalar
}

// webQuestion is asked of an owner's node.
type webQuestion struct {
	Leaf  []byte `json:"leaf,omitempty"`  // make a certificate for this key
	Owner bool   `json:"owner,omitempty"` // I am an owner: give me the authority's key
}

type webReply struct {
	CA   []byte `json:"ca,omitempty"`
	Leaf []byte `json:"leaf,omitempty"`
	Key  []byte `json:"key,omitempty"`
}

// keepWebCert has a certificate for the companion at hand, whatever happens to the owners.
func (a *Agent) keepWebCert(ctx context.Context) error {
	a.restoreWeb()
	changed := a.roster.Watch(ctx)
	said := ""
	for {
		wait := webLater
		if err := a.renewWeb(ctx); err != nil {
			if why := err.Error(); why != said {
				a.log.Debug("no certificate for the companion yet", "why", why)
				said = why
			}
			wait = webSoon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(wait):
		}
	}
}

func (a *Agent) restoreWeb() {
	var ca, leaf storedCert
	if a.loadWeb(keyWebCA, &ca) == nil && ca.CA != nil {
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), ca.Key); err == nil {
			a.web.ca, _ = webca.Open(ca.CA, key)
		}
	}
	if a.loadWeb(keyWebLeaf, &leaf) == nil && leaf.Leaf != nil {
		if err := a.showLeaf(leaf); err != nil {
			a.log.Info("the stored certificate of the companion is not used", "why", err)
		}
	}
}

func (a *Agent) loadWeb(name string, to *storedCert) error {
	var b []byte
	if err := a.store.View(func(tx devices.Tx) error { b = tx.Get(devices.BucketNode, name); return nil }); err != nil {
		return err
	}
	if b == nil {
		return nil
	}
	return json.Unmarshal(b, to)
}

func (a *Agent) saveWeb(name string, c storedCert) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return a.store.Update("web."+name, func(tx devices.Tx) error { return tx.Put(devices.BucketNode, name, b) })
}

// showLeaf takes a certificate into use if it is the home's.
func (a *Agent) showLeaf(c storedCert) error {
	r, err := a.home()
	if err != nil {
		return err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), c.Key)
	if err != nil {
		return err
	}
	if _, err := webca.Check(r.Home, r.WebCA, c.CA, c.Leaf, &key.PublicKey); err != nil {
		return err
	}
	cert, err := webca.Certificate(c.CA, c.Leaf, key)
	if err != nil {
		return err
	}
	a.web.der.Store(&c.CA)
	if a.cfg.Web.Cert == "" {
		a.web.shown.Store(cert)
	}
	return nil
}

// renewWeb does what is due: own files, the authority on an owner, the leaf.
func (a *Agent) renewWeb(ctx context.Context) error {
	if a.cfg.Web.Cert != "" {
		return a.ownFiles()
	}
	r, err := a.home()
	if err != nil {
		return err
	}
	select {
	case <-a.mesh.Synced():
	default:
		return errors.New("the rosters are being compared")
	}
	owner := r.Members[a.self].Role == devices.RoleOwner
	if owner {
		if err := a.haveCA(ctx, r); err != nil {
			return err
		}
		r = a.roster.Roster()
	}
	if r.WebCA == ([32]byte{}) {
		return errors.New("no owner has made the home's authority yet")
	}
	now, known := a.homeTime()
	if !known {
		now = time.Time{}
	}
	der := a.web.der.Load()
	if der != nil && webca.Sum(*der) == r.WebCA && (!known || !webca.Renew(a.web.shown.Load().Leaf, now)) {
		return nil
	}
	return a.newLeaf(ctx, r, now)
}

// haveCA makes the home's authority if there is none, or asks another owner for it.
func (a *Agent) haveCA(ctx context.Context, r *devices.Roster) error {
	if ca := a.webCA(); ca != nil && webca.Sum(ca.Cert.Raw) == r.WebCA {
		return nil
	}
	if r.WebCA == ([32]byte{}) {
		return a.makeCA(r)
	}
	w, err := a.askOwners(ctx, r, webQuestion{Owner: true})
	if err != nil {
		return err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), w.Key)
	if err != nil {
		return err
	}
	if webca.Sum(w.CA) != r.WebCA {
		return webca.ErrOther
	}
	return a.keepCA(w.CA, key)
}

func (a *Agent) webCA() *webca.CA {
	a.web.mu.Lock()
	defer a.web.mu.Unlock()
	return a.web.ca
}

// keepCA stores the authority before anybody hears of it.
func (a *Agent) keepCA(der []byte, key *ecdsa.PrivateKey) error {
	ca, err := webca.Open(der, key)
	if err != nil {
		return err
	}
	raw, err := key.Bytes()
	if err != nil {
		return err
	}
	if err := a.saveWeb(keyWebCA, storedCert{CA: der, Key: raw}); err != nil {
		return err
	}
	a.web.mu.Lock()
	defer a.web.mu.Unlock()
	a.web.ca = ca
	return nil
}

// makeCA makes a new authority and names it in the roster. Of two owners who do so at once the
// roster keeps one, and the other asks for it.
func (a *Agent) makeCA(r *devices.Roster) error {
	ca, err := webca.New(r.Home)
	if err != nil {
		return err
	}
	if err := a.keepCA(ca.Cert.Raw, ca.Key); err != nil {
		return err
	}
	a.log.Info("the companion of the home has a new certificate authority", "words", webca.Words(webca.Sum(ca.Cert.Raw)))
	return a.roster.SetWebCA(a.key, webca.Sum(ca.Cert.Raw))
}

// newLeaf gets a certificate for a new key, made here or by an owner.
func (a *Agent) newLeaf(ctx context.Context, r *devices.Roster, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	raw, err := key.Bytes()
	if err != nil {
		return err
	}
	c := storedCert{Key: raw}
	if ca := a.webCA(); ca != nil && webca.Sum(ca.Cert.Raw) == r.WebCA {
		c.CA = ca.Cert.Raw
		c.Leaf, err = ca.Leaf(r.Home, &key.PublicKey, now)
	} else {
		var w webReply
		w, err = a.askOwners(ctx, r, webQuestion{Leaf: devices.CompressedKey(&key.PublicKey)})
		c.CA, c.Leaf = w.CA, w.Leaf
	}
	if err != nil {
		return err
	}
	if _, err := webca.Check(r.Home, r.WebCA, c.CA, c.Leaf, &key.PublicKey); err != nil {
		return err
	}
	if err := a.saveWeb(keyWebLeaf, c); err != nil {
		return err
	}
	return a.showLeaf(c)
}

// askOwners asks one owner after the other until one can answer.
func (a *Agent) askOwners(ctx context.Context, r *devices.Roster, q webQuestion) (webReply, error) {
	err := errors.New("no owner of the home can be reached")
	for _, d := range a.owners(r) {
		var res reply
		asked, cancel := context.WithTimeout(ctx, askTime)
		res, err = a.ask(asked, d, question{Web: &q})
		cancel()
		if err == nil && res.Web != nil {
			return *res.Web, nil
		}
	}
	return webReply{}, errors.Join(errors.New("no owner gave a certificate"), err)
}

// owners lists the owner nodes that can be reached, without this one.
func (a *Agent) owners(r *devices.Roster) []devices.Device {
	var out []devices.Device
	for _, d := range a.dir.Snapshot().Devices {
		if !d.Self && d.Status == devices.Reachable && r.Members[d.Node].Role == devices.RoleOwner {
			out = append(out, d)
		}
	}
	return out
}

// answerWeb gives a member a certificate, and the key of the authority to an owner alone.
func (a *Agent) answerWeb(from devices.Device, q webQuestion) (*webReply, error) {
	r, ca := a.roster.Roster(), a.webCA()
	if !r.Has(from.Node) || ca == nil || webca.Sum(ca.Cert.Raw) != r.WebCA {
		return nil, errors.New("this device does not hold the home's authority")
	}
	out := &webReply{CA: ca.Cert.Raw}
	if q.Owner {
		if r.Members[from.Node].Role != devices.RoleOwner { // check: authority for owners
			return nil, errors.New("only an owner may hold the home's authority")
		}
		a.log.Info("another owner gets the key of the companion's certificate authority", "peer", from.Slug)
		var err error
		out.Key, err = ca.Key.Bytes()
		return out, err
	}
	pub, err := devices.ParseCompressedKey(q.Leaf)
	if err != nil {
		return nil, err
	}
	now, known := a.homeTime()
	if !known {
		now = time.Time{}
	}
	out.Leaf, err = ca.Leaf(r.Home, pub, now)
	return out, err
}

// ownFiles shows certificate files of the operator, and takes them anew when they change.
func (a *Agent) ownFiles() error {
	stamp := ""
	for _, f := range []string{a.cfg.Web.Cert, a.cfg.Web.Key} {
		st, err := os.Stat(f)
		if err != nil {
			return fmt.Errorf("web: %w", err)
		}
		stamp += fmt.Sprint(st.Size(), st.ModTime().UnixNano(), " ")
	}
	if stamp == a.web.files {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(a.cfg.Web.Cert, a.cfg.Web.Key)
	if err != nil {
		a.log.Warn("the companion's certificate files cannot be used; the old ones stay", "err", err)
		return err
	}
	a.web.shown.Store(&cert)
	a.web.files = stamp
	a.log.Info("the companion shows the certificate of its own files", "cert", a.cfg.Web.Cert)
	return nil
}

// mayEdit says whether this node may change the home.
func (a *Agent) mayEdit() (*devices.Roster, error) {
	r, err := a.home()
	if err != nil {
		return nil, err
	}
	return r, trust.MayEdit(r, a.self)
}
