package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// command runs a program of the test and returns what it printed.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// debOf packs this machine's binary.
func debOf(t testing.TB, version string) string {
	t.Helper()
	in, out := t.TempDir(), t.TempDir()
	command(t, "go", "run", "../../firmware/cross", "-only", "linux-amd64", "-out", in, "-version", version)
	command(t, "go", "-C", "../../firmware/pack", "run", ".", "-in", in, "-out", out, "-version", version, "-epoch", "1700000000")
	found, err := filepath.Glob(filepath.Join(out, "*_amd64.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("one deb, not %v (%v)", found, err)
	}
	return found[0]
}

// debian is a fresh Debian of this machine's release in a folder, from the mirror that this
// machine uses. HALLWAY_CHROOT names one made before, which is copied.
func debian(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if made := os.Getenv("HALLWAY_CHROOT"); made != "" {
		command(t, "cp", "-a", made, root)
	} else {
		needs(t, "mmdebstrap", "apt-get")
		sources := strings.Fields(command(t, "apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"))
		if len(sources) < 2 {
			missing(t, "apt knows no source of packages; run `apt-get update`")
		}
		command(t, "mmdebstrap", "--quiet", "--variant=minbase", "--include=adduser", sources[0], root, sources[1])
	}
	must(t, os.WriteFile(filepath.Join(root, "usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 101\n"), 0o755)) //nolint:gosec // a program of the chroot
	return root
}

// tree lists what there is in a root, with owner and mode, but for what dpkg and adduser
// keep about themselves; and the users.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case slices.Contains([]string{"proc", "run", "var/log", "var/cache", "var/lib/dpkg", "tmp"}, rel):
			return fs.SkipDir
		case strings.HasPrefix(rel, "etc/") && strings.HasSuffix(rel, "-"): // passwd-: what was there before
			return nil
		}
		all = append(all, fmt.Sprint(e.Type(), " ", rel))
		return nil
	}))
	for _, f := range []string{"passwd", "group"} {
		b, err := os.ReadFile(filepath.Join(root, "etc", f))
		must(t, err)
		all = append(all, strings.Fields(f+" "+strings.ReplaceAll(string(b), " ", "_"))...)
	}
	return all
}

// execStart is the line by which systemd starts the service.
func execStart(t testing.TB, root string) []string {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(root, "lib/systemd/system/hallway.service"))
	must(t, err)
	for line := range strings.Lines(string(unit)) {
		if v, ok := strings.CutPrefix(line, "ExecStart="); ok {
			return strings.Fields(v)
		}
	}
	t.Fatal("the unit starts nothing")
	return nil
}

// The deb installs on a fresh Debian, its service line runs as its own user, pairs by a
// code and takes a call; an upgrade keeps configuration and membership; a purge leaves
// nothing.
func TestA30_DebianPackage(t *testing.T) {
	l := newLab(t)
	first, second := debOf(t, "v0.1.0"), debOf(t, "v0.1.0-4-g0123abc")
	root := debian(t)
	before := tree(t, root)
	install := func(deb string) {
		command(t, "cp", deb, filepath.Join(root, "tmp/hallway.deb"))
		command(t, "chroot", root, "dpkg", "--force-confold", "-i", "/tmp/hallway.deb")
	}
	install(first)
	if got := command(t, "chroot", root, "/usr/bin/hallway", "version"); !strings.Contains(got, "v0.1.0 ") {
		t.Errorf("the installed program says %q", got)
	}
	config := filepath.Join(root, "etc/hallway/hallway.yaml")
	b, err := os.ReadFile(config)
	must(t, err)
	must(t, os.WriteFile(config, append(b, "name: Panel\nsource: {clip: /tmp/clip.mkv}\n"...), 0o644)) //nolint:gosec // as the package has it
	file := clip(t, 440)
	command(t, "install", "-m", "0644", file, filepath.Join(root, "tmp/clip.mkv"))

	tv := newNode(t, l, "TV", "tv", "", "--source-clip", file).start().found()
	panel := newNode(t, l, "Panel", "panel", "")
	panel.dir = filepath.Join(root, "var/lib/hallway")
	panel.command = slices.Concat([]string{"chroot", "--userspec=hallway:hallway", root}, execStart(t, root))
	panel.args = nil
	panel.start()
	if uid := command(t, "stat", "-c", "%U %a", fmt.Sprintf("/proc/%d", panel.pid())); strings.HasPrefix(uid, "root") {
		t.Errorf("it runs as %s", uid)
	}
	p := ask[pairState](panel, "pair", "--no-wait")
	tv.eventually(10*time.Second, "the window is seen", func() bool {
		_, code := tv.try("add", p.ShortID, p.Code)
		return code == 0
	})
	allSee(t, 15*time.Second, tv, panel)
	talk(t, tv, panel)

	panel.stop()
	install(second)
	if now, err := os.ReadFile(config); err != nil || !strings.Contains(string(now), "name: Panel") {
		t.Errorf("the upgrade did not keep the configuration: %v", err)
	}
	panel.start()
	allSee(t, 15*time.Second, tv, panel)
	panel.stop()
	command(t, "chroot", root, "dpkg", "--purge", "hallway")
	_ = os.Remove(filepath.Join(root, "tmp/hallway.deb"))
	for _, x := range tree(t, root) {
		if !slices.Contains(before, x) {
			t.Errorf("left after the purge: %s", x)
		}
	}
}

// systemd itself judges how much of the machine the service can reach: 0 is nothing, 10
// everything. At most 2.5.
func TestA30_ServiceIsConfined(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		missing(t, "systemd-analyze is missing; apt install systemd")
	}
	out := command(t, "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", "../../firmware/pack/files/hallway.service")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Overall exposure level") {
			t.Log(strings.TrimSpace(line))
			return
		}
	}
	t.Errorf("no judgement in %s", out)
}

// The same source gives the same bytes in another folder, without git beside it.
func TestA30_BuildsAreReproducible(t *testing.T) {
	copied := t.TempDir()
	files := strings.Split(strings.TrimRight(command(t, "git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00"), "\x00")
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join("../..", f))
		if os.IsNotExist(err) { // removed, and not yet committed
			continue
		}
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(copied, f)), 0o755))
		must(t, os.WriteFile(filepath.Join(copied, f), b, 0o644))
	}
	const app = "cmd/companion/dist/index.html"
	if _, err := os.Stat(filepath.Join("../..", app)); err == nil { // built by npm, and not in git
		command(t, "make", "-s", "-C", copied, app)
	}
	const targets = "linux-amd64"
	one, two := t.TempDir(), t.TempDir()
	command(t, "go", "-C", "../..", "run", "./firmware/cross", "-only", targets, "-out", one, "-version", "v0.1.0", "-commit", "0123abc")
	// Nothing compiled before may be taken over, or the second build would prove nothing.
	command(t, "env", "GOCACHE="+t.TempDir(), "go", "-C", copied, "run", "./firmware/cross", "-only", targets, "-out", two, "-version", "v0.1.0", "-commit", "0123abc")
	a, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	must(t, err)
	b, err := os.ReadFile(filepath.Join(two, "SHA256SUMS"))
	must(t, err)
	if string(a) != string(b) || strings.Count(string(a), "\n") != 1 {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	}
	t.Logf("%s", a)
	command(t, "sh", "-c", "cd "+one+" && sha256sum -c SHA256SUMS")
	got := command(t, filepath.Join(one, "hallway-linux-amd64"), "version", "--json")
	if !strings.Contains(got, `"version":"v0.1.0","commit":"0123abc"`) {
		t.Errorf("it says %s", got)
	}
}
