package e2e

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A neighbour who belongs to no home forges mDNS, floods the member port and throws noise
// at everything that listens, some thousand packets a second. Nobody's roster or records
// change, nobody renames itself or forgets anybody, memory stays bounded, a call goes on, and
// nothing leaves the link.
func TestHostile_Stranger(t *testing.T) {
	l := newLab(t)
	stranger := program(t, "stranger")
	b := besiege(t, l)
	evil, err := l.Host("stranger")
	must(t, err)
	b.tv.run("invite") // a window is open meanwhile
	var addrs, names, media []string
	for _, d := range ask[devices](b.tv, "devices").Devices {
		names = append(names, "Hallway-"+d.Node[:8])
	}
	for _, n := range b.nodes() {
		addrs = append(addrs, n.host.IPv4)
		for _, p := range mediaPorts(t, n.pid()) {
			media = append(media, fmt.Sprint(p))
		}
	}
	if len(media) < 2 {
		t.Fatalf("the media ports are not found: %v", media)
	}
	cmd := evil.Command(t.Context(), stranger, "-self", evil.IPv4, "-targets", strings.Join(addrs, ","), "-names", strings.Join(names, ","),
		"-media", strings.Join(media, ","), "-rate", "3000", "-for", fmt.Sprint(length("HALLWAY_HOSTILE", 10*time.Second)))
	b.during(cmd)
	for _, n := range b.nodes() {
		if out := outward(t, n.pid()); out != "" {
			t.Errorf("%s sent something off the link: %s", n.name, out)
		}
	}
	b.unmoved()
	// A device that starts now is found, although strangers held its peers' port a moment ago.
	b.camera.kill()
	b.tv.eventually(5*time.Second, "the camera is gone", func() bool { return b.tv.sees("camera") == "unreachable" })
	b.camera.start()
	b.tv.eventually(10*time.Second, "the camera is back", func() bool { return b.tv.sees("camera") == "reachable" })
}

// outward is what the kernel knows of the way out of the house: it looks for the router
// (which is not there) only when something is sent off the link.
func outward(t *testing.T, pid int) string {
	t.Helper()
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "ip", "neigh", "show", "10.77.0.254").Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}
