package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// ErrNoAgent says that no agent serves the socket.
var ErrNoAgent = errors.New("the agent is not running")

// Problem is an error that the agent answered with (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

func (p Problem) Error() string {
	s := p.Detail
	for _, e := range p.Errors {
		s += "; " + strings.TrimPrefix(e.Location, "body.") + ": " + e.Message
	}
	return s
}

// Client speaks to an agent over its Unix socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client; it connects with the first request.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close ends idle connections; the client can be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends one request; in and out may be nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+prefix+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w (nothing answers at %s); start it with `hallway up`, or name its folder with --data", ErrNoAgent, c.socket)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("no permission to speak to the agent at %s; run this as the user who runs it: %w", c.socket, err)
	case err != nil:
		return nil, err
	case res.StatusCode >= http.StatusBadRequest:
		defer func() { _ = res.Body.Close() }()
		var p Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			return nil, fmt.Errorf("the agent answered with HTTP status %d", res.StatusCode)
		}
		return nil, p
	}
	return res, nil
}

// Events follows the stream until ctx or the agent ends; f may stop it with an error.
func (c *Client) Events(ctx context.Context, f func(Event) error) error {
	res, err := c.send(ctx, http.MethodGet, "/events", nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Escape makes a path segment of a name.
func Escape(s string) string { return url.PathEscape(s) }
