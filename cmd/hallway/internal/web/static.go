package web

import (
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/hallway-home/hallway/devices/trust/webca"
)

// static serves the app's files. Paths without one are screens of the app, which is one page.
func (s *Server) static() http.Handler {
	files := http.FileServerFS(s.cfg.App)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r.Method) {
			refuse(w, http.StatusMethodNotAllowed, "nothing is changed here")
			return
		}
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		w.Header().Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") { // their names change with what they hold
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		if st, err := fs.Stat(s.cfg.App, name); name != "" && name != "index.html" && err == nil && !st.IsDir() {
			files.ServeHTTP(w, r)
			return
		}
		if path.Ext(name) != "" && name != "index.html" {
			refuse(w, http.StatusNotFound, "there is no such file")
			return
		}
		s.index(w)
	})
}

// index is the app, or without a build the page that says so.
func (s *Server) index(w http.ResponseWriter) {
	for _, name := range []string{"index.html", "placeholder.html"} {
		f, err := s.cfg.App.Open(name)
		if err != nil {
			continue
		}
		defer func() { _ = f.Close() }()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.Copy(w, f) // whoever hung up needs no answer
		return
	}
	refuse(w, http.StatusNotFound, "this program was built without its companion")
}

// page is a small page of the server's own; body is HTML.
func page(w http.ResponseWriter, status int, title, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>%[1]s</title><h1>%[1]s</h1>%[2]s", html.EscapeString(title), body)
}

// trustPage leads a phone to trusting the home before it scans anything.
func (s *Server) trustPage(w http.ResponseWriter, r *http.Request) {
	ca := s.cfg.CA()
	if !reads(r.Method) || ca == nil {
		page(w, http.StatusNotFound, "Nothing to trust here", "<p>This device shows a certificate of its own files.</p>")
		return
	}
	sum := webca.Sum(ca)
	page(w, http.StatusOK, "Let this device recognise the home", fmt.Sprintf(`<ol>
<li>Compare these words with those that <code>hallway home trust</code> shows on a device of the home. If they differ, stop: somebody is in between.
<p><strong id=words>%s</strong></p>
<li>Install the certificate. It is good for the name <b>%s</b> alone.<ul>
<li>iPhone, iPad: <a href="/trust/hallway.mobileconfig">get the profile</a>, install it in Settings, then switch it on under General, About, Certificate Trust Settings.
<li>Android: <a href="/trust/hallway.crt">get the certificate</a>, then Settings, Security, Encryption, Install a certificate, CA certificate.
<li>Computer: <a href="/trust/hallway.crt">get the certificate</a> and import it as an authority.</ul>
<li>Compare the SHA-256 fingerprint that the settings show: <code>%s</code>
<li>Then scan the code that the device shows.</ol>`, webca.Words(sum), html.EscapeString(s.cfg.Roster().Home.AppHost()), webca.Fingerprint(sum)))
}

// trustFile gives the authority's certificate in the two forms that phones install.
func (s *Server) trustFile(w http.ResponseWriter, r *http.Request) {
	ca := s.cfg.CA()
	if !reads(r.Method) || ca == nil {
		refuse(w, http.StatusNotFound, "there is no such file")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	roster := s.cfg.Roster()
	switch r.URL.Path {
	case "/trust/hallway.crt":
		w.Header().Set("Content-Type", "application/x-x509-ca-cert")
		_, _ = w.Write(webca.PEM(ca)) // whoever hung up needs no answer
	case "/trust/hallway.mobileconfig":
		w.Header().Set("Content-Type", "application/x-apple-aspen-config")
		_, _ = w.Write(webca.Profile(roster.Home, roster.Home.AppHost(), ca))
	default:
		refuse(w, http.StatusNotFound, "there is no such file")
	}
}
