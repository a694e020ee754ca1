package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hallway-home/hallway/firmware"
)

// imageUser runs the agent in a container. It is no user of the host.
const imageUser = 65532

// platforms of the image; mipsle has no container engine worth the name.
func platforms() map[string]v1.Platform {
	return map[string]v1.Platform{
		"linux-amd64":   {OS: "linux", Architecture: "amd64"},
		"linux-arm64":   {OS: "linux", Architecture: "arm64", Variant: "v8"},
		"linux-arm-7":   {OS: "linux", Architecture: "arm", Variant: "v7"},
		"linux-arm-6":   {OS: "linux", Architecture: "arm", Variant: "v6"},
		"linux-riscv64": {OS: "linux", Architecture: "riscv64"},
	}
}

// image writes one image for all architectures as an OCI layout, and the layout as a file
// that `podman load`, `skopeo` and `docker load` read. There is no base image: the program
// is static, dials nothing by name of a public CA, and ships its own time zone for nobody.
func (j *job) image() error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, t := range j.targets {
		platform, ok := platforms()[t.Name]
		if !ok {
			continue
		}
		img, err := j.imageOf(t, platform)
		if err != nil {
			return fmt.Errorf("the image of %s: %w", t.Name, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	named := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index, Descriptor: v1.Descriptor{
		Annotations: map[string]string{"org.opencontainers.image.ref.name": strings.ReplaceAll(packageVersion(j.version), "+", "-")},
	}})
	dir := filepath.Join(j.out, "oci")
	if _, err := layout.Write(dir, named); err != nil {
		return err
	}
	return j.archive(dir, filepath.Join(j.out, "hallway-oci.tar"))
}

func (j *job) imageOf(t firmware.Target, p v1.Platform) (v1.Image, error) {
	content, err := j.layer(t)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: j.time}, CreatedBy: "firmware/pack"}}); err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Created = v1.Time{Time: j.time}
	config.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", imageUser, imageUser), Entrypoint: []string{"/usr/bin/hallway"}, Cmd: []string{"up"}, WorkingDir: "/",
		Env: []string{"HALLWAY_DATA=/data", "PATH=/usr/bin"}, Volumes: map[string]struct{}{"/data": {}}, StopSignal: "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title": "Hallway", "org.opencontainers.image.version": j.version,
			"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.source": "https://github.com/hallway-home/hallway",
		},
	}
	return mutate.ConfigFile(img, config)
}

// layer holds the program, a data folder that its user may write, a place for temporary
// files, and the user's name.
func (j *job) layer(t firmware.Target) ([]byte, error) {
	program, err := os.ReadFile(j.binary(t))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, mode int64, owner int, content []byte) error {
		h := &tar.Header{Name: name, Mode: mode, Uid: owner, Gid: owner, Size: int64(len(content)), ModTime: j.time, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	passwd := fmt.Sprintf("root:x:0:0:root:/:/none\nhallway:x:%d:%d:Hallway agent:/data:/none\n", imageUser, imageUser)
	group := fmt.Sprintf("root:x:0:\nhallway:x:%d:\n", imageUser)
	for _, f := range []struct {
		name    string
		mode    int64
		owner   int
		content []byte
	}{
		{"data/", 0o700, imageUser, nil}, {"etc/", 0o755, 0, nil}, {"etc/group", 0o644, 0, []byte(group)}, {"etc/passwd", 0o644, 0, []byte(passwd)},
		{"tmp/", 0o1777, 0, nil}, {"usr/", 0o755, 0, nil}, {"usr/bin/", 0o755, 0, nil}, {"usr/bin/hallway", 0o755, 0, program},
	} {
		if err := add(f.name, f.mode, f.owner, f.content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// archive writes a folder as a tar file in the order of names.
func (j *job) archive(dir, file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	tree := os.DirFS(dir)
	err = fs.WalkDir(tree, ".", func(rel string, e fs.DirEntry, err error) error {
		if err != nil || rel == "." {
			return err
		}
		if e.IsDir() {
			return w.WriteHeader(&tar.Header{Name: rel + "/", Mode: 0o755, ModTime: j.time, Typeflag: tar.TypeDir})
		}
		b, err := fs.ReadFile(tree, rel)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: int64(len(b)), ModTime: j.time, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
