// Package companion embeds the companion app: what `make companion` built into dist, or
// without that build one page that says so. It runs nothing.
package companion

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Files are the app's files: index.html when it was built, else placeholder.html alone.
func Files() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // a constant path
	}
	return sub
}
