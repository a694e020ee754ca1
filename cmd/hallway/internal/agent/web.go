package agent

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/hallway-home/hallway/cmd/companion"
	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/web"
	"github.com/hallway-home/hallway/sessions/edge"
)

// webAgain: a port that is taken is tried again.
const webAgain = 10 * time.Second

// serveWeb serves the companion while this node belongs to a home, and not before: there is
// nobody yet who could log in.
func (a *Agent) serveWeb(ctx context.Context) error {
	if a.cfg.WebAddr() == "" {
		return nil
	}
	changed := a.roster.Watch(ctx)
	said := false
	for {
		var again <-chan time.Time
		if a.roster.Roster().Has(a.self) {
			if err := a.serveHome(ctx); err != nil && ctx.Err() == nil {
				if !said {
					a.log.Warn("it goes on without the companion; choose another port with `web: {listen: ...}`", "err", err)
				}
				said, again = true, time.After(webAgain)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

// serveHome serves until ctx ends or this node belongs no more.
func (a *Agent) serveHome(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := a.roster.Watch(ctx)
	done := make(chan struct{})
	defer func() { <-done }()
	defer cancel()
	go func() {
		defer close(done)
		for a.roster.Roster().Has(a.self) {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
		cancel()
	}()
	ln, err := a.listenWeb(ctx, a.cfg.WebAddr())
	if err != nil {
		return err
	}
	var kiosk net.Listener
	if a.cfg.Web.Kiosk != "" {
		if kiosk, err = a.listenWeb(ctx, a.cfg.Web.Kiosk); err != nil {
			_ = ln.Close()
			return err
		}
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	a.webListens.Store(&port)
	a.announceNow()
	return web.New(web.Config{
		Backend: a, Version: a.opt.Version, App: companion.Files(), Roster: a.roster.Roster, Changed: a.roster.Watch,
		Synced: a.mesh.Synced(), HomeTime: a.homeTime, Cert: a.web.shown.Load, CA: a.authority, Pair: a.pairPhone, Carrier: a, Logger: a.log,
		Mounts: []web.Mount{{Path: "/sip", Least: api.AsMember, Handler: http.HandlerFunc(a.serveSIP)}},
	}).Run(ctx, ln, kiosk)
}

func (a *Agent) listenWeb(ctx context.Context, addr string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// webPort is where the companion is served here.
func (a *Agent) webPort() string {
	if p := a.webListens.Load(); p != nil {
		return *p
	}
	return appPort
}

// authority is the certificate that phones are to trust; nil with own files, or before there is one.
func (a *Agent) authority() []byte {
	if der := a.web.der.Load(); der != nil && a.cfg.Web.Cert == "" {
		return *der
	}
	return nil
}

// serveSIP lets a logged-in browser be a SIP phone; the rules of the home say whom it may
// call. The flow ends with the login.
func (a *Agent) serveSIP(w http.ResponseWriter, r *http.Request) {
	s, ok := web.SessionOf(r.Context())
	if !ok {
		http.Error(w, api.WordsLogin, http.StatusUnauthorized)
		return
	}
	a.edge.Serve(r.Context(), edge.Phone{ID: s.Phone, Person: s.Person}, w, r)
}
