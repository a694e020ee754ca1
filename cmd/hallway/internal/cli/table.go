package cli

import (
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/hallway-home/hallway/devices"
)

// table prints aligned columns.
func (a *app) table(head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, r := range append([][]string{head}, rows...) {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(r []string, colour bool) {
		var b strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if colour {
				c = a.paint(c)
			}
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(pad + "  ")
			}
		}
		a.say("%s", strings.TrimRight(b.String(), " "))
	}
	line(head, false)
	for _, r := range rows {
		line(r, true)
	}
}

// paint colours the words that people look for, on a terminal only.
func (a *app) paint(s string) string {
	colour := ""
	switch s {
	case string(devices.Reachable), "ok", "active", "answered", "joined":
		colour = "32"
	case string(devices.Unreachable), "fail", "fails":
		colour = "31"
	case string(devices.NeverSeen), "warn", "not tried", "ringing", "incoming", "calling":
		colour = "33"
	}
	if colour == "" || !a.terminal() {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// terminal reports whether people look at the output.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
