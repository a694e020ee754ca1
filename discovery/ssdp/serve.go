package ssdp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// path of the description; short, because it is in every answer.
	path = "/d.xml"
	// maxConns of people reading our description at once.
	maxConns = 16
	// slow clients are cut off after this.
	serveTime = 3 * time.Second
)

// onLink is a listener for which those who are not on a used link do not exist.
type onLink struct {
	net.Listener
	links func() map[int]multicast.Link
}

func (o onLink) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if near(o.links(), c.RemoteAddr(), c.LocalAddr()) {
			return c, nil
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, not a goodbye
		}
		_ = c.Close()
	}
}

// near reports whether a connection came over one of our links from a host on it.
func near(links map[int]multicast.Link, remote, local net.Addr) bool {
	r, errR := netip.ParseAddrPort(remote.String())
	l, errL := netip.ParseAddrPort(local.String())
	if errR != nil || errL != nil {
		return false
	}
	for _, k := range links {
		if k.Owns(l.Addr()) && k.OnLink(r.Addr()) {
			return true
		}
	}
	return false
}

// page is what is served now: the description, and the companion's URL if there is one.
type page struct {
	doc []byte
	app string
}

// serve answers GET of the description, leads whoever opens the address in a browser to the
// companion, and does nothing else, until ctx ends. There is no eventing (CVE-2020-12695): SUBSCRIBE is told so.
func serve(ctx context.Context, ln net.Listener, now func() *page, log *slog.Logger) error {
	h := func(w http.ResponseWriter, r *http.Request) {
		p := now()
		w.Header().Set("Server", server)
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case r.Method == "SUBSCRIBE" || r.Method == "UNSUBSCRIBE":
			w.WriteHeader(http.StatusNotImplemented)
		case read && r.URL.Path == "/" && p != nil && p.app != "":
			w.Header().Set("Location", p.app)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case r.URL.Path != path || !read || p == nil:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
			_, _ = w.Write(p.doc) // whoever hung up needs no answer
		}
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(h), ReadTimeout: serveTime, WriteTimeout: serveTime, MaxHeaderBytes: 4 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	srv.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(netutil.LimitListener(ln, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
