package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/hallway-home/hallway/firmware"
)

// packed builds the agent for some targets and packs it, twice into two folders.
func packed(t *testing.T) (one, two string) {
	t.Helper()
	in := t.TempDir()
	for _, target := range firmware.Targets() {
		if !slices.Contains([]string{"linux-amd64", "linux-arm-7", "linux-mipsle"}, target.Name) {
			continue
		}
		cmd := exec.Command("go", firmware.BuildArgs("v0.1.0", filepath.Join(in, target.File()))...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), target.BuildEnv()...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	one, two = filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	for _, out := range []string{one, two} {
		j := job{in: in, out: out, version: "v0.1.0", time: time.Unix(1700000000, 0).UTC()}
		if err := j.run("../../cmd/hallway/internal/config/hallway.sample.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	return one, two
}

func TestPackages(t *testing.T) {
	one, two := packed(t)
	t.Run("two runs give the same bytes", func(t *testing.T) { same(t, one, two) })
	t.Run("the image is valid", func(t *testing.T) { image(t, filepath.Join(one, "oci")) })
	t.Run("the ipk unpacks to the right tree", func(t *testing.T) { ipkTree(t, filepath.Join(one, "hallway_0.1.0_mipsel_24kc.ipk")) })
	t.Run("the list says what is inside", func(t *testing.T) { bomSays(t, filepath.Join(one, "hallway-linux-arm-7.cdx.json")) })
	t.Run("the sums are right", func(t *testing.T) {
		cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = one
		if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") < 8 {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func same(t *testing.T, one, two string) {
	count := 0
	err := filepath.WalkDir(one, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		count++
		rel, err := filepath.Rel(one, path)
		if err != nil {
			return err
		}
		a, errA := os.ReadFile(path)
		b, errB := os.ReadFile(filepath.Join(two, rel))
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", rel)
		}
		return errors.Join(errA, errB)
	})
	if err != nil || count < 10 {
		t.Errorf("%d files: %v", count, err)
	}
}

// image reads the layout again as an engine would: every digest, size and type.
func image(t *testing.T, dir string) {
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	images, err := index.IndexManifest()
	if err != nil || len(images.Manifests) != 2 {
		t.Fatalf("amd64 and arm/v7, not %+v (%v)", images, err)
	}
	for _, m := range images.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != m.Platform.Architecture || config.Variant != m.Platform.Variant || config.Config.User != "65532:65532" ||
			config.Created.Unix() != 1700000000 || !slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/hallway"}) {
			t.Errorf("%s: %+v", m.Platform, config)
		}
		contents(t, img)
	}
}

func contents(t *testing.T, img v1.Image) {
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	owner := map[string]int{}
	for name, h := range entries(t, r) {
		owner[name] = h.Uid
		if h.Mode&0o7000 != 0 && name != "tmp/" {
			t.Errorf("%s has mode %o", name, h.Mode)
		}
	}
	if owner["data/"] != imageUser || owner["usr/bin/hallway"] != 0 || len(owner) != 8 {
		t.Errorf("the layer holds %v", owner)
	}
}

func entries(t *testing.T, r io.Reader) map[string]*tar.Header {
	t.Helper()
	out := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h
	}
}

// ipkTree unpacks as opkg does: a compressed tar that holds two.
func ipkTree(t *testing.T, file string) {
	dir := t.TempDir()
	for _, args := range [][]string{{"-xzf", file, "-C", dir}, {"-xzf", filepath.Join(dir, "control.tar.gz"), "-C", dir}} {
		if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	data, err := os.Open(filepath.Join(dir, "data.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = data.Close() }()
	z, err := gzip.NewReader(data)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, z)
	for name, mode := range map[string]int64{
		"./usr/bin/hallway": 0o755, "./etc/init.d/hallway": 0o755, "./etc/hallway/hallway.yaml": 0o644, "./lib/upgrade/keep.d/hallway": 0o644,
	} {
		if h := got[name]; h == nil || h.Mode != mode || h.Uid != 0 {
			t.Errorf("%s: %+v", name, h)
		}
		delete(got, name)
	}
	for name, h := range got {
		if h.Typeflag != tar.TypeDir {
			t.Errorf("nobody expects %s", name)
		}
	}
	control, err := os.ReadFile(filepath.Join(dir, "control"))
	if err != nil || !strings.Contains(string(control), "Architecture: mipsel_24kc\n") || !strings.Contains(string(control), "Version: 0.1.0\n") {
		t.Errorf("%s, %v", control, err)
	}
	if conf, err := os.ReadFile(filepath.Join(dir, "conffiles")); err != nil || strings.TrimSpace(string(conf)) != "/etc/hallway/hallway.yaml" {
		t.Errorf("what is kept at an upgrade: %q, %v", conf, err)
	}
	for _, script := range []string{"files/openwrt.init", "files/openwrt.postinst", "files/openwrt.prerm", "files/postinst", "files/prerm", "files/postrm"} {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", script, out)
		}
	}
}

func bomSays(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := json.Unmarshal(b, &bom); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, c := range *bom.Components {
		names[c.Name] = c.Version
	}
	if names["github.com/pion/webrtc/v4"] == "" || names["stdlib"] == "" || names["github.com/goreleaser/nfpm/v2"] != "" || bom.Metadata.Component.Version != "v0.1.0" {
		t.Errorf("%v", names)
	}
}

func TestPackageVersion(t *testing.T) {
	for described, want := range map[string]string{
		"v1.2.0": "1.2.0", "1.2.0": "1.2.0", "v1.2.0-3-gabc": "1.2.0+3.gabc", "v1.2.0-3-gabc-dirty": "1.2.0+3.gabc.dirty",
		"fdedfb0": "0.0.0+git.fdedfb0", "1234567": "0.0.0+git.1234567", "dev": "0.0.0+git.dev", "v1.2.0-dirty": "1.2.0.dirty",
	} {
		if got := packageVersion(described); got != want {
			t.Errorf("%s: %s, not %s", described, got, want)
		}
	}
}

func TestNothingToPack(t *testing.T) {
	j := job{in: t.TempDir(), out: filepath.Join(t.TempDir(), "out")}
	if err := j.run("../../cmd/hallway/internal/config/hallway.sample.yaml"); err == nil || !strings.Contains(err.Error(), "make cross") {
		t.Error(err)
	}
}
