package mdns

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/miekg/dns"
)

// maxLabel is the length of one DNS label (RFC 1035 section 2.3.4).
const maxLabel = 63

// escape makes one DNS label of an instance name (RFC 6763 section 4.3), written exactly
// as the library writes a name it has parsed, so that the two compare equal.
func escape(label string) string { return quote(label, ". '@;()\"\\") }

// escapeText does the same for the strings of a TXT record.
func escapeText(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = quote(s, "\"\\")
	}
	return out
}

func quote(s, special string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case strings.IndexByte(special, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "\\%03d", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape takes the escapes of the presentation format away.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			if n := int(s[i+1]-'0')*100 + int(s[i+2]-'0')*10 + int(s[i+3]-'0'); n < 256 {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func unescapeText(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = unescape(s)
	}
	return out
}

// cutLabel splits the first label of a parsed name off and takes its escapes away.
func cutLabel(name string) (label, rest string, ok bool) {
	i, end := dns.NextLabel(name, 0)
	if end || i < 2 {
		return "", "", false
	}
	return unescape(name[:i-1]), name[i:], true
}

// lower folds a name's case (RFC 6762 section 16: ASCII letters only; others are escaped).
func lower(name string) string { return strings.ToLower(name) }

// numbered is the n-th choice of a taken instance name: "TV", "TV (2)", "TV (3)".
func numbered(base string, n int) string {
	if n < 2 {
		return clip(base, maxLabel)
	}
	suffix := fmt.Sprintf(" (%d)", n)
	return clip(base, maxLabel-len(suffix)) + suffix
}

// numberedHost is the n-th choice of a taken host name: "tv.local", "tv-2.local".
func numberedHost(base string, n int) string {
	if n < 2 {
		return base
	}
	label, rest, _ := strings.Cut(base, ".")
	suffix := fmt.Sprintf("-%d", n)
	return clip(label, maxLabel-len(suffix)) + suffix + "." + rest
}

// clip shortens s to n bytes without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
