package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/hallway-home/hallway/firmware"
)

// boms writes for each binary what is linked into it. The list is read from the binary
// itself, so it cannot say anything else than what is inside.
func (j *job) boms() error {
	for _, t := range j.targets {
		if err := j.bomOf(t); err != nil {
			return fmt.Errorf("the list of what is in %s: %w", t.File(), err)
		}
	}
	return nil
}

func (j *job) bomOf(t firmware.Target) error {
	content, err := os.ReadFile(j.binary(t))
	if err != nil {
		return err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	self := cdx.Component{
		BOMRef: "pkg:golang/" + info.Main.Path, Type: cdx.ComponentTypeApplication, Name: "hallway", Version: j.version,
		PackageURL: "pkg:golang/" + info.Main.Path + "@" + j.version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}}, Properties: settings(t, info),
	}
	version := strings.TrimPrefix(info.GoVersion, "go")
	parts := []cdx.Component{{
		BOMRef: "pkg:golang/stdlib", Type: cdx.ComponentTypeLibrary, Name: "stdlib", Version: version, PackageURL: "pkg:golang/stdlib@" + version,
	}}
	for _, m := range info.Deps {
		parts = append(parts, component(m))
	}
	refs := make([]string, 0, len(parts))
	for _, p := range parts {
		refs = append(refs, p.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = serial(sum)
	bom.Metadata = &cdx.Metadata{Timestamp: j.time.Format(time.RFC3339), Component: &self}
	bom.Components = &parts
	bom.Dependencies = &[]cdx.Dependency{{Ref: self.BOMRef, Dependencies: &refs}}
	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(j.out, t.File()+".cdx.json"), b.Bytes(), 0o644)
}

func component(m *debug.Module) cdx.Component {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl}
	if m.Sum != "" { // a hash over a tree of files, which none of CycloneDX's kinds means
		c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.Sum}}
	}
	return c
}

func settings(t firmware.Target, info *debug.BuildInfo) *[]cdx.Property {
	out := []cdx.Property{{Name: "hallway:target", Value: t.Name}}
	for _, s := range info.Settings {
		out = append(out, cdx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	return &out
}

// serial is a UUID of version 8 (RFC 9562: any content) from the binary's hash, so that the
// same binary always has the same list.
func serial(sum [32]byte) string {
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
