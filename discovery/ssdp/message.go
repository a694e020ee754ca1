package ssdp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// maxHeaders: an answer has about ten, with vendors' own about twenty.
	maxHeaders = 40
	// maxLine: the longest is LOCATION, a URL on the sender.
	maxLine = 1024
	// maxUUID: 36 characters by the book; old devices invent their own.
	maxUUID = 64
)

// kind of a message.
type kind int

const (
	notify   kind = iota + 1 // UDA 2.0 section 1.2
	search                   // section 1.3.2
	response                 // section 1.3.3
)

// message is one datagram: HTTP's syntax over UDP (UDA 2.0 section 1.1.2).
type message struct {
	kind   kind
	header map[string]string // by upper-case name; the first of each
}

var errSyntax = errors.New("this is no SSDP message")

// parse reads a datagram; it is tolerant of bare line feeds and a missing last one.
func parse(data []byte) (message, error) {
	m := message{header: map[string]string{}}
	lines := bytes.Split(data, []byte("\n"))
	if len(lines) > maxHeaders+2 {
		return m, fmt.Errorf("%w: more than %d headers", errSyntax, maxHeaders)
	}
	for i, raw := range lines {
		line := string(bytes.TrimSuffix(raw, []byte("\r")))
		switch {
		case len(line) > maxLine || strings.ContainsFunc(line, isControl):
			return m, fmt.Errorf("%w: line %d", errSyntax, i+1)
		case i == 0:
			if m.kind = kindOf(line); m.kind == 0 {
				return m, errSyntax
			}
			continue
		case line == "":
			return m, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if name = strings.ToUpper(strings.TrimRight(name, " \t")); !ok || name == "" || strings.ContainsAny(name, " \t") {
			return m, fmt.Errorf("%w: line %d", errSyntax, i+1)
		}
		if _, known := m.header[name]; !known {
			m.header[name] = strings.TrimSpace(value)
		}
	}
	return m, nil
}

func kindOf(line string) kind {
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "NOTIFY" && f[1] == "*" && strings.HasPrefix(f[2], "HTTP/1."):
		return notify
	case len(f) == 3 && f[0] == "M-SEARCH" && f[1] == "*" && strings.HasPrefix(f[2], "HTTP/1."):
		return search
	case len(f) >= 2 && strings.HasPrefix(f[0], "HTTP/1.") && f[1] == "200":
		return response
	}
	return 0
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// usn takes "uuid:X" or "uuid:X::TARGET" apart (UDA 2.0 table 1-1); the UUID in lower case.
func usn(s string) (uuid, target string, ok bool) {
	s, ok = cutPrefixFold(s, "uuid:")
	uuid, target, _ = strings.Cut(s, "::")
	if !ok || uuid == "" || len(uuid) > maxUUID || strings.ContainsFunc(uuid, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' && r != '.'
	}) {
		return "", "", false
	}
	return strings.ToLower(uuid), target, true
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

const (
	maxAge = 1800 * time.Second // ours, and of those who say none (UDA 2.0 section 1.2.2)
	// leastAge: a device that says less would be asked for all the time.
	leastAge = 30 * time.Second
	// mostAge: nobody stays listed for longer than a day after its last word.
	mostAge = 24 * time.Hour
)

// age is how long a message is good for.
func (m message) age() time.Duration {
	for d := range strings.SplitSeq(m.header["CACHE-CONTROL"], ",") {
		name, value, _ := strings.Cut(d, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "max-age") {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
		if err != nil {
			break
		}
		return min(max(time.Duration(n)*time.Second, leastAge), mostAge)
	}
	return maxAge
}

const (
	mostDelay = 5 * time.Second // UDA 2.0 section 1.3.3: more than 5 is taken for 5
	// unicastDelay bounds the answer to a search that was sent to this node alone.
	unicastDelay = time.Second
)

// delay is the longest that the answer to a search may wait; false if it is to be
// discarded (section 1.3.3).
func (m message) delay(group bool) (time.Duration, bool) {
	if strings.Trim(m.header["MAN"], `"`) != "ssdp:discover" {
		return 0, false
	}
	if !group {
		return unicastDelay, true
	}
	n, err := strconv.ParseUint(m.header["MX"], 10, 31)
	if err != nil || n == 0 {
		return 0, false
	}
	return min(time.Duration(n)*time.Second, mostDelay), true
}
