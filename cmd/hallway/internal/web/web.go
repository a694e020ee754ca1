// Package web serves the home's companion over HTTPS: the app's files, the step by which a
// phone comes to trust the home, pairing, login, and the API under the table of access.
//
// Server.Run blocks until its context ends; handlers run in many goroutines. The package
// refuses every request whose Host is not the home's one origin (or localhost), changes by
// GET, bodies that are not JSON, requests of other origins, and whoever has no session
// where one is needed. It holds no key: who belongs is asked of the roster each time.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

const (
	// headerTime bounds handshake and headers, bodyTime what follows: requests are small.
	// http.Server.ReadTimeout would end event streams.
	headerTime, bodyTime = 5 * time.Second, 10 * time.Second
	// idleTime is how long a kept connection may be silent. A browser whose node lost its power
	// would try each that it keeps, one after the other, before it asks another node.
	idleTime = 5 * time.Second
	// maxHeader bounds the header of a request.
	maxHeader = 16 << 10
	// reviewEvery is how often guests' last days and idle sessions are looked at; a roster
	// change is looked at when it comes.
	reviewEvery = 5 * time.Second
)

// Config of a Server. All functions may be called from any goroutine.
type Config struct {
	Backend  api.Backend
	Version  string
	App      fs.FS                                      // the companion's files, with index.html or placeholder.html
	Roster   func() *devices.Roster                     // as it is now; this node belongs
	Changed  func(context.Context) <-chan struct{}      // signals after each change of the roster
	Synced   <-chan struct{}                            // closed once rosters were compared: nobody is served before
	HomeTime func() (time.Time, bool)                   // for guests' last days
	Cert     func() *tls.Certificate                    // nil: not ready yet
	CA       func() []byte                              // DER of the home's authority; nil: none, or own files
	Pair     func(context.Context, Phone) (bool, error) // whether the phone is in; false: a person must confirm it
	Carrier  api.Carrier                                // nil: what only an owner may do is tried here
	Mounts   []Mount
	Logger   *slog.Logger
}

// Phone is a browser that shows a window's secret.
type Phone struct {
	Key   []byte // compressed P-256
	Name  string
	Proof []byte
}

// Mount is a path that another package answers, such as /sip. Its handler finds who asks with
// SessionOf; the request is of this origin.
type Mount struct {
	Path    string
	Least   api.Access
	Handler http.Handler
}

// Server is the companion's HTTPS server.
type Server struct {
	cfg      Config
	log      *slog.Logger
	sessions *sessions
	login    *login
	api      http.Handler
	pace     *pace
}

// New makes a server; it starts nothing.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, sessions: newSessions(time.Now), pace: newPace(time.Now)}
	s.login = &login{Server: s, challenges: NewChallenges()}
	s.api, _ = api.NewHandler(cfg.Backend, s.login, cfg.Version)
	return s
}

// Run serves the origin on ln, and on kiosk (nil: none), a loopback listener, plain HTTP for
// a browser on this device.
func (s *Server) Run(ctx context.Context, ln, kiosk net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.review(ctx) })
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.cfg.Cert(); c != nil {
				return c, nil
			}
			return nil, errors.New("this device has no certificate for the companion yet; it asks the home's owners for one")
		},
	}
	port := portOf(ln)
	g.Go(func() error {
		return s.serve(ctx, ln, config, origins{"https", port, func(host string) bool { return host == s.cfg.Roster().Home.AppHost() || host == "localhost" }})
	})
	if kiosk != nil {
		g.Go(func() error {
			return s.serve(ctx, kiosk, nil, origins{"http", portOf(kiosk), func(host string) bool { return host == "localhost" }})
		})
	}
	err := g.Wait()
	s.sessions.endAll()
	return err
}

func portOf(ln net.Listener) string {
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func (s *Server) serve(ctx context.Context, ln net.Listener, config *tls.Config, o origins) error {
	conns := newConns(maxConns, maxPerSource)
	srv := &http.Server{
		Handler: s.handler(o), TLSConfig: config, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnState: conns.state, ConnContext: conns.with,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what strangers do wrong is no warning
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	var err error
	if config != nil {
		err = srv.ServeTLS(ln, "", "")
	} else {
		err = srv.Serve(ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// review ends the sessions of those who may no more, as soon as the roster says so.
func (s *Server) review(ctx context.Context) error {
	changed := s.cfg.Changed(ctx)
	tick := time.NewTicker(reviewEvery)
	defer tick.Stop()
	for {
		s.sessions.review(s.who)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

func (s *Server) who(phone devices.NodeID) (devices.Person, api.Access) {
	return Who(s.cfg.Roster(), s.cfg.HomeTime, phone)
}

// Who says whose phone it is and what that person may now.
func Who(r *devices.Roster, homeTime func() (time.Time, bool), phone devices.NodeID) (devices.Person, api.Access) {
	if r == nil {
		return devices.Person{}, api.AsNobody
	}
	p, ok := r.Persons[r.Phones[phone].Person]
	if !ok {
		return devices.Person{}, api.AsNobody
	}
	if p.Until != 0 {
		if now, known := homeTime(); !known || now.Unix() >= p.Until { // check: last day
			return p, api.AsNobody
		}
	}
	return p, api.AccessOf(p.Role)
}
