package wsd

import (
	"bytes"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// maxDepth: Envelope, Body, ProbeMatches, ProbeMatch, EndpointReference, Address is six.
	maxDepth = 12
	// maxElements is some ten times what a camera's answer has.
	maxElements = 512
	// maxMatches in one answer: a camera answers for itself, a recorder for its channels.
	maxMatches = 16
	// maxField: the longest are the scopes, a kilobyte or so.
	maxField = 4096
	// maxAddress of an endpoint: "urn:uuid:" and 36 characters, by the book.
	maxAddress = 128

	// Names of WS-Discovery (April 2005) and WS-Addressing (August 2004), as ONVIF uses them
	// (ONVIF Core Specification, section 7).
	nsDiscovery  = "http://schemas.xmlsoap.org/ws/2005/04/discovery"
	nsAddressing = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
	nsSOAP       = "http://www.w3.org/2003/05/soap-envelope"
	nsONVIF      = "http://www.onvif.org/ver10/network/wsdl"
)

var errSyntax = errors.New("this is no WS-Discovery message")

// endpoint is one device as a message tells of it.
type endpoint struct {
	id     string   // address of the endpoint reference, e.g. "urn:uuid:...", lower case
	types  []string // local names
	scopes []string
	xaddrs []string
}

// message is a Hello, a Bye or the answer to a probe.
type message struct {
	action    string // "Hello", "Bye", "ProbeMatches"
	relatesTo string
	endpoints []endpoint
}

// parse reads one datagram within limits. A message that declares anything (a DOCTYPE, and
// so entities) is refused.
func parse(data []byte) (message, error) {
	var m message
	dec := xml.NewDecoder(bytes.NewReader(data))
	var names []xml.Name
	var text strings.Builder
	elements := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, fmt.Errorf("%w: %w", errSyntax, err)
		}
		switch t := tok.(type) {
		case xml.Directive:
			return m, fmt.Errorf("%w: it declares something of its own", errSyntax)
		case xml.StartElement:
			names = append(names, t.Name)
			text.Reset()
			if elements++; elements > maxElements || len(names) > maxDepth {
				return m, fmt.Errorf("%w: too large or too deep", errSyntax)
			}
			if err := m.open(names); err != nil {
				return m, err
			}
		case xml.CharData:
			if text.Len()+len(t) <= maxField {
				text.Write(t)
			}
		case xml.EndElement:
			m.take(names, strings.TrimSpace(text.String()))
			text.Reset()
			names = names[:len(names)-1]
		}
	}
	m.endpoints = slices.DeleteFunc(m.endpoints, func(e endpoint) bool { return e.id == "" })
	if m.action == "" || len(m.endpoints) == 0 {
		return m, errSyntax
	}
	return m, nil
}

// open notes what a message is and where a device begins.
func (m *message) open(names []xml.Name) error {
	n := len(names)
	last := names[n-1]
	if n == 1 && (last.Local != "Envelope" || last.Space != nsSOAP) {
		return errSyntax
	}
	if n < 3 || names[1].Local != "Body" || last.Space != nsDiscovery {
		return nil
	}
	switch {
	case n == 3 && (last.Local == "Hello" || last.Local == "Bye"):
		m.action = last.Local
		m.endpoints = append(m.endpoints, endpoint{})
	case n == 3 && last.Local == "ProbeMatches":
		m.action = last.Local
	case n == 4 && m.action == "ProbeMatches" && last.Local == "ProbeMatch":
		m.endpoints = append(m.endpoints, endpoint{})
	}
	if len(m.endpoints) > maxMatches {
		return fmt.Errorf("%w: more than %d devices in one", errSyntax, maxMatches)
	}
	return nil
}

func (m *message) take(names []xml.Name, text string) {
	n := len(names)
	last := names[n-1]
	if n == 3 && names[1].Local == "Header" && last.Local == "RelatesTo" && last.Space == nsAddressing {
		m.relatesTo = text
		return
	}
	depth := 3 // of what is inside Hello and Bye
	if m.action == "ProbeMatches" {
		depth = 4
	}
	if n <= depth || len(m.endpoints) == 0 || names[1].Local != "Body" {
		return
	}
	e := &m.endpoints[len(m.endpoints)-1]
	switch {
	case n == depth+2 && names[depth].Local == "EndpointReference" && last.Local == "Address":
		if len(text) <= maxAddress && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			e.id = strings.ToLower(text)
		}
	case n == depth+1 && last.Local == "Types":
		for f := range strings.FieldsSeq(text) {
			_, local, ok := strings.Cut(f, ":")
			if !ok {
				local = f
			}
			e.types = append(e.types, local)
		}
	case n == depth+1 && last.Local == "Scopes":
		e.scopes = strings.Fields(text)
	case n == depth+1 && last.Local == "XAddrs":
		e.xaddrs = strings.Fields(text)
	}
}

// scope reads "onvif://www.onvif.org/<what>/<value>" (ONVIF Core Specification, section
// 7.3.2.2), made fit for one line of a table.
func (e endpoint) scope(what string) string {
	for _, s := range e.scopes {
		v, ok := strings.CutPrefix(s, "onvif://www.onvif.org/"+what+"/")
		if !ok {
			continue
		}
		if u, err := url.PathUnescape(v); err == nil {
			v = u
		}
		if v = discovery.OneLine(v); v != "" {
			return v
		}
	}
	return ""
}

// address is where the device is served, on the host that said so; a XAddr that leads
// elsewhere is not believed. Without one it is where the device spoke.
func (e endpoint) address(from netip.AddrPort) netip.AddrPort {
	for _, x := range e.xaddrs {
		u, err := url.Parse(x)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		host, err := netip.ParseAddr(u.Hostname())
		if err != nil || host.WithZone("").Unmap() != from.Addr().WithZone("").Unmap() { // check: XAddr of its sender
			continue
		}
		port := uint64(80)
		if u.Scheme == "https" {
			port = 443
		}
		if p := u.Port(); p != "" {
			if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
				continue
			}
		}
		return netip.AddrPortFrom(from.Addr(), uint16(port))
	}
	return from
}

// newID makes a MessageID (RFC 4122 version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// probe asks for network video transmitters.
func probe(id string) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?>`+
		`<s:Envelope xmlns:s="`+nsSOAP+`" xmlns:a="`+nsAddressing+`" xmlns:d="`+nsDiscovery+`" xmlns:dn="`+nsONVIF+`">`+
		`<s:Header><a:MessageID>%s</a:MessageID><a:To s:mustUnderstand="1">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>`+
		`<a:Action s:mustUnderstand="1">`+nsDiscovery+`/Probe</a:Action></s:Header>`+
		`<s:Body><d:Probe><d:Types>dn:`+transmitter+`</d:Types></d:Probe></s:Body></s:Envelope>`, id)
}
