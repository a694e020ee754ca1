package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
)

// origins says which names a listener answers to.
type origins struct {
	scheme, port string
	name         func(host string) bool
}

// allows compares a request's Host with the allow-list: a page that rebinds its own name to
// this address (DNS rebinding) names itself there.
func (o origins) allows(host string) bool {
	h, port, err := net.SplitHostPort(host)
	if err != nil {
		h, port = host, map[string]string{"https": "443", "http": "80"}[o.scheme]
	}
	return port == o.port && o.name(strings.ToLower(h))
}

// policy lets the app load from its own origin alone.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self'; " +
	"connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func protect(h http.Header) {
	for k, v := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
		"Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=(self), screen-wake-lock=(self)",
	} {
		h.Set(k, v)
	}
}

// handler is everything that one listener answers.
func (s *Server) handler(o origins) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(api.Prefix+"/", s.serveAPI)
	for _, m := range s.cfg.Mounts {
		mux.Handle(m.Path, s.mounted(m))
	}
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/trust", s.trustPage)
	mux.HandleFunc("/trust/", s.trustFile)
	mux.Handle("/", s.static())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		if !s.pace.allow(source(r)) {
			refuse(w, http.StatusTooManyRequests, api.ErrOften.Error())
			return
		}
		if !o.allows(r.Host) { // check: Host of the origin
			s.elsewhere(w, r, o)
			return
		}
		if why := foreign(r, o); why != "" { // check: Origin
			refuse(w, http.StatusForbidden, why)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// foreign says why a request is not of this origin's own pages; empty: it is. Browsers send
// Origin with everything that can change something, and Sec-Fetch-Site with everything.
func foreign(r *http.Request, o origins) string {
	const words = "this request comes from another site"
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	if origin != "" && origin != o.scheme+"://"+r.Host {
		return words
	}
	if reads(r.Method) && r.Header.Get("Upgrade") == "" {
		// A link from elsewhere may open a page, and nothing else.
		page := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && !strings.HasPrefix(r.URL.Path, api.Prefix)
		if site == "" || site == "same-origin" || site == "none" || page {
			return ""
		}
		return words
	}
	if origin == "" || site != "" && site != "same-origin" {
		return words
	}
	return ""
}

func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// serveAPI finds out who asks and lets the table of access decide.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !reads(r.Method) && !isJSON(r) {
		refuse(w, http.StatusUnsupportedMediaType, "the API takes application/json only")
		return
	}
	if err := wholeBody(w, r); err != nil {
		refuse(w, http.StatusBadRequest, "the request is too large, too slow, or a read with a body")
		return
	}
	ctx := r.Context()
	if sess := s.sessions.of(r, s.who); sess != nil {
		if !reads(r.Method) && r.Header.Get("X-CSRF-Token") != sess.csrf { // check: CSRF token
			refuse(w, http.StatusForbidden, "the header X-CSRF-Token is missing or wrong; log in again")
			return
		}
		var done func()
		ctx, done = s.sessions.use(ctx, sess)
		defer done()
		ctx = api.WithCaller(ctx, api.Caller{Access: sess.Access, Person: sess.Person, Phone: sess.Phone})
	}
	if strings.HasPrefix(r.URL.Path, api.Prefix+"/openapi") && api.CallerOf(ctx).Access < api.AsGuest {
		refuse(w, http.StatusUnauthorized, api.WordsLogin)
		return
	}
	s.api.ServeHTTP(w, r.WithContext(withSource(ctx, r)))
}

// wholeBody takes a request's body before anything is held for it.
func wholeBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	if reads(r.Method) {
		return errors.New("a read has no body")
	}
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return err
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return c.SetReadDeadline(time.Time{})
}

// isJSON also takes requests without a body: a form cannot make them with that Origin.
func isJSON(r *http.Request) bool {
	if r.ContentLength == 0 {
		return true
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// mounted asks for a session before another package's handler.
func (s *Server) mounted(m Mount) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess := s.sessions.of(r, s.who)
		switch {
		case sess == nil:
			refuse(w, http.StatusUnauthorized, api.WordsLogin)
		case sess.Access < m.Least:
			refuse(w, http.StatusForbidden, api.WordsAccess)
		default:
			ctx, done := s.sessions.use(r.Context(), sess)
			defer done()
			m.Handler.ServeHTTP(w, r.WithContext(ctx))
		}
	})
}

// refuse answers with a problem (RFC 9457).
func refuse(w http.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": words}) // whoever hung up needs no answer
}

// elsewhere answers under any other name: a person who typed an address is led to the origin,
// everything else is refused.
func (s *Server) elsewhere(w http.ResponseWriter, r *http.Request, o origins) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil || !reads(r.Method) || o.scheme != "https" {
		refuse(w, http.StatusMisdirectedRequest, "the companion is served under another name; open it by that")
		return
	}
	switch {
	case r.URL.Path == "/trust":
		s.trustPage(w, r)
	case strings.HasPrefix(r.URL.Path, "/trust/"):
		s.trustFile(w, r)
	case strings.HasPrefix(r.URL.Path, api.Prefix):
		refuse(w, http.StatusMisdirectedRequest, "the companion is served under another name; open it by that")
	default:
		page(w, http.StatusMisdirectedRequest, "Open the companion by its name", fmt.Sprintf(
			`<p>This is a device of a Hallway home. The companion has one address on all of them:</p><p><a href="%[1]s">%[1]s</a></p>`+
				`<p>If your browser warns there, <a href="/trust">let it recognise the home first</a>.</p>`, s.url(o.port)))
	}
}

func (s *Server) url(port string) string {
	return "https://" + s.cfg.Roster().Home.AppHost() + ":" + port + "/"
}
