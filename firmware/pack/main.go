// Command pack makes packages of the binaries that firmware/cross built: deb for Debian and
// its kin, ipk for OpenWrt, one OCI image for all architectures, and for each binary a
// list of what is linked into it (CycloneDX). It needs no root and no container engine, and
// the same binaries, version and time give the same bytes.
//
// It is a module of its own: what writes packages brings forty modules along (go-git among
// them) that have no business in the list of what the agent is made of.
package main

import (
	"crypto/sha256"
	"embed"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/firmware"
)

//go:embed files
var files embed.FS

// job is one run.
type job struct {
	in, out string
	version string
	time    time.Time // of every file inside, so that two runs give the same bytes
	config  []byte    // the commented sample
	work    string    // for files that nfpm reads from disk
	targets []firmware.Target
}

func main() {
	var j job
	var epoch int64
	var sample string
	flag.StringVar(&j.in, "in", "../../build/firmware", "folder with the binaries of firmware/cross")
	flag.StringVar(&j.out, "out", "../../build/packages", "folder for the packages")
	flag.StringVar(&j.version, "version", "dev", "version of the packages, as `git describe` says it")
	flag.Int64Var(&epoch, "epoch", 0, "time of the files inside, in seconds since 1970")
	flag.StringVar(&sample, "config", "../../cmd/hallway/internal/config/hallway.sample.yaml", "the commented configuration")
	flag.Parse()
	j.time = time.Unix(epoch, 0).UTC()
	if err := j.run(sample); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (j *job) run(sample string) (err error) {
	if j.config, err = os.ReadFile(sample); err != nil {
		return err
	}
	for _, t := range firmware.Targets() {
		if _, err := os.Stat(filepath.Join(j.in, t.File())); err == nil {
			j.targets = append(j.targets, t)
		}
	}
	if len(j.targets) == 0 {
		return fmt.Errorf("%s holds no binary; run `make cross` first", j.in)
	}
	if err := os.RemoveAll(j.out); err != nil {
		return err
	}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	if j.work, err = os.MkdirTemp("", "hallway-pack"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(j.work) }()
	for _, step := range []func() error{j.boms, j.debs, j.ipks, j.image, j.sums} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// sums writes SHA256SUMS over everything that a person downloads.
func (j *job) sums() error {
	entries, err := os.ReadDir(j.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(j.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Printf("%-40s %6.2f MiB\n", e.Name(), float64(len(b))/firmware.MiB)
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), e.Name())
	}
	return os.WriteFile(filepath.Join(j.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// binary is the path of a target's binary.
func (j *job) binary(t firmware.Target) string { return filepath.Join(j.in, t.File()) }

// file puts an embedded file where nfpm can read it, with the mode that the package gets
// from its list, whatever this user's umask is.
func (j *job) file(name string) (string, error) {
	b, err := files.ReadFile("files/" + name)
	if err != nil {
		return "", err
	}
	return j.write(name, b)
}

func (j *job) write(name string, b []byte) (string, error) {
	path := filepath.Join(j.work, name)
	return path, os.WriteFile(path, b, 0o600)
}

// packageVersion makes a version that dpkg and opkg order rightly: "v1.2.0-3-gabc" comes
// after 1.2.0 and before 1.2.1, and without a tag everything is before the first release.
func packageVersion(described string) string {
	v := strings.TrimPrefix(described, "v")
	dirty := strings.HasSuffix(v, "-dirty")
	v = strings.TrimSuffix(v, "-dirty")
	if v == "" || v[0] < '0' || v[0] > '9' || !strings.Contains(v, ".") {
		v = "0.0.0+git." + v
	} else if i := strings.IndexByte(v, '-'); i > 0 {
		v = v[:i] + "+" + strings.ReplaceAll(v[i+1:], "-", ".")
	}
	if dirty {
		v += ".dirty"
	}
	return v
}

// named picks the targets that a kind of package is made for.
func (j *job) named(names map[string]string) []firmware.Target {
	return slices.DeleteFunc(slices.Clone(j.targets), func(t firmware.Target) bool { return names[t.Name] == "" })
}
