package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	nfpmfiles "github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/ipk"

	"github.com/hallway-home/hallway/firmware"
)

const description = `devices of a home call each other by name
Every screen, camera, speaker and doorbell in a home can call every other one,
without a server: devices find each other on the LAN, belong to one home by a
code typed once, and send sound and picture directly, encrypted.`

// debArch: armhf of Debian is ARMv7; a Raspberry Pi 1 or Zero (ARMv6) runs Raspbian, whose
// packages are called the same, so it takes the plain binary.
func debArch() map[string]string {
	return map[string]string{"linux-amd64": "amd64", "linux-arm64": "arm64", "linux-arm-7": "armhf"}
}

// ipkArch are OpenWrt's names of one common processor each. The binaries run on the whole
// family; opkg installs them elsewhere with --force-architecture (docs/packages.md).
func ipkArch() map[string]string {
	return map[string]string{
		"linux-amd64": "x86_64", "linux-arm64": "aarch64_generic", "linux-arm-6": "arm_arm1176jzf-s_vfp",
		"linux-arm-7": "arm_cortex-a7_neon-vfpv4", "linux-riscv64": "riscv64_generic", "linux-mipsle": "mipsel_24kc",
	}
}

// entry is one file of a package.
type entry struct {
	source, dest string
	mode         os.FileMode
	config       bool // kept when the owner changed it
}

func (j *job) info(t firmware.Target, arch string, entries []entry) *nfpm.Info {
	info := &nfpm.Info{
		Name: "hallway", Arch: arch, Platform: "linux", Version: packageVersion(j.version), VersionSchema: "none",
		Maintainer: "The Hallway authors <hallway@hallway-home.invalid>", Description: description,
		Homepage: "https://github.com/hallway-home/hallway", License: "Apache-2.0", MTime: j.time, DisableGlobbing: true,
	}
	entries = append(entries, entry{source: j.binary(t), dest: "/usr/bin/hallway", mode: 0o755})
	for _, e := range entries {
		kind := nfpmfiles.TypeFile
		if e.config {
			kind = nfpmfiles.TypeConfig
		}
		info.Contents = append(info.Contents, &nfpmfiles.Content{
			Source: e.source, Destination: e.dest, Type: kind,
			FileInfo: &nfpmfiles.ContentFileInfo{Owner: "root", Group: "root", Mode: e.mode, MTime: j.time},
		})
	}
	return info
}

// place writes the embedded files and says where they go.
func (j *job) place(data string, where map[string]entry) ([]entry, error) {
	config := bytes.Replace(j.config, []byte("#data: /var/lib/hallway"), []byte("data: "+data), 1)
	if bytes.Equal(config, j.config) {
		return nil, fmt.Errorf("the sample configuration has no line %q any more", "#data: /var/lib/hallway")
	}
	path, err := j.write("hallway.yaml", config)
	if err != nil {
		return nil, err
	}
	entries := []entry{{source: path, dest: "/etc/hallway/hallway.yaml", mode: 0o644, config: true}}
	for name, e := range where {
		if e.source, err = j.file(name); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (j *job) debs() error {
	entries, err := j.place("/var/lib/hallway", map[string]entry{
		"hallway.service": {dest: "/lib/systemd/system/hallway.service", mode: 0o644},
		"copyright":       {dest: "/usr/share/doc/hallway/copyright", mode: 0o644},
	})
	if err != nil {
		return err
	}
	page, err := j.manPage()
	if err != nil {
		return err
	}
	entries = append(entries, entry{source: page, dest: "/usr/share/man/man1/hallway.1.gz", mode: 0o644})
	for _, t := range j.named(debArch()) {
		info := j.info(t, debArch()[t.Name], entries)
		info.Section, info.Priority = "net", "optional"
		info.Depends = []string{"adduser"}
		info.Recommends = []string{"ca-certificates"} // by which it knows the push services that wake phones
		info.Suggests = []string{"ffmpeg"}
		info.Deb.Compression = "gzip" // xz saves a tenth and takes a minute on a small build machine
		if info.Scripts.PostInstall, err = j.file("postinst"); err != nil {
			return err
		}
		if info.Scripts.PreRemove, err = j.file("prerm"); err != nil {
			return err
		}
		if info.Scripts.PostRemove, err = j.file("postrm"); err != nil {
			return err
		}
		if err := j.pack(deb.Default, "deb", info); err != nil {
			return err
		}
	}
	return nil
}

// manPage is compressed, as Debian wants it, and without a time of its own.
func (j *job) manPage() (string, error) {
	page, err := files.ReadFile("files/hallway.1")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(page); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return j.write("hallway.1.gz", b.Bytes())
}

func (j *job) ipks() error {
	entries, err := j.place("/etc/hallway/data", map[string]entry{
		"openwrt.init": {dest: "/etc/init.d/hallway", mode: 0o755},
		"openwrt.keep": {dest: "/lib/upgrade/keep.d/hallway", mode: 0o644},
	})
	if err != nil {
		return err
	}
	for _, t := range j.named(ipkArch()) {
		info := j.info(t, ipkArch()[t.Name], entries)
		info.Section, info.Priority = "net", "optional"
		info.IPK.Arch = ipkArch()[t.Name]
		if info.Scripts.PostInstall, err = j.file("openwrt.postinst"); err != nil {
			return err
		}
		if info.Scripts.PreRemove, err = j.file("openwrt.prerm"); err != nil {
			return err
		}
		if err := j.pack(ipk.Default, "ipk", info); err != nil {
			return err
		}
	}
	return nil
}

// pack writes one package.
func (j *job) pack(p nfpm.Packager, format string, info *nfpm.Info) error {
	info = nfpm.WithDefaults(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	name := fmt.Sprintf("hallway_%s_%s.%s", info.Version, info.Arch, format)
	file, err := os.Create(filepath.Join(j.out, strings.ReplaceAll(name, "+", "-")))
	if err != nil {
		return err
	}
	if err := p.Package(info, file); err != nil {
		_ = file.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return file.Close()
}
