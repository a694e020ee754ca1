package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// foreignTable shows what is in the house but belongs to no home of ours.
func (a *app) foreignTable(list []devices.Foreign) {
	rows := make([][]string, 0, len(list))
	for _, f := range list {
		rows = append(rows, []string{f.Name, f.Is, strings.Join(f.Protocols, " "), addrOf(f), ago(time.Since(f.LastSeen))})
	}
	a.say("\nForeign: in sight, not trusted")
	a.table([]string{"CALLED", "IS", "SEEN BY", "ADDRESS", "LAST SEEN"}, rows)
}

// addrOf is one address of a foreign thing, an IPv4 one where there is one: people know
// those, and the rest is in --json.
func addrOf(f devices.Foreign) string {
	for _, a := range f.Addrs {
		if a.Addr().Unmap().Is4() {
			return a.String()
		}
	}
	if len(f.Addrs) > 0 {
		return f.Addrs[0].String()
	}
	return "-"
}

// ago says how long something is past, as people do.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
