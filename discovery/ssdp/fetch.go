package ssdp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

const (
	// fetchTime: a device on the LAN answers in milliseconds; a sleepy one in a second.
	fetchTime = 3 * time.Second
	// maxRedirects, all on the same host: some devices send "/" to "/description.xml".
	maxRedirects = 2
	// maxFetches run at once; the rest waits for the next time the device speaks.
	maxFetches = 8
	// maxFetchesPerHost: one slow host must not keep the others waiting.
	maxFetchesPerHost = 2
	// retryAfter a description could not be had.
	retryAfter = time.Minute
)

var errElsewhere = errors.New("it points to another host")

// target reads a LOCATION. Only one on the host that sent it is followed: else a packet
// could make this node fetch anything from anywhere (CVE-2020-12695 and its kin).
func target(location string, sender netip.Addr) (*url.URL, netip.AddrPort, error) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("%q is no plain HTTP address", location)
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || host.WithZone("").Unmap() != sender.WithZone("").Unmap() { // check: LOCATION of its sender
		return nil, netip.AddrPort{}, fmt.Errorf("%s: %w", location, errElsewhere)
	}
	port := uint64(80)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return nil, netip.AddrPort{}, fmt.Errorf("%s: no such port", location)
		}
	}
	return u, netip.AddrPortFrom(sender.Unmap(), uint16(port)), nil
}

// fetch gets a description from the host that named it, whatever the URL's host resolves
// to, within limits of time and size.
func fetch(ctx context.Context, u *url.URL, sender netip.Addr) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", net.JoinHostPort(sender.String(), port))
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 8 << 10,
	}
	client := http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || r.URL.Scheme != "http" || r.URL.Hostname() != u.Hostname() {
			return errElsewhere
		}
		return nil
	}}
	plain := *u
	plain.Host = net.JoinHostPort(sender.WithZone("").String(), strconv.Itoa(portOf(u)))
	u = &plain // without a zone, which means nothing to the other side
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", u, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxDescription+1))
	if err == nil && len(data) > maxDescription {
		err = fmt.Errorf("%s: %w: longer than %d bytes", u, errDescription, maxDescription)
	}
	return data, err
}

func portOf(u *url.URL) int {
	if n, err := strconv.Atoi(u.Port()); err == nil {
		return n
	}
	return 80
}
