package main
import (
 _ "github.com/goreleaser/nfpm/v2"
 _ "github.com/goreleaser/nfpm/v2/deb"
 _ "github.com/goreleaser/nfpm/v2/ipk"
 _ "github.com/google/go-containerregistry/pkg/v1/layout"
 _ "github.com/google/go-containerregistry/pkg/v1/mutate"
 _ "github.com/google/go-containerregistry/pkg/v1/validate"
 _ "github.com/CycloneDX/cyclonedx-go"
 _ "github.com/hallway-home/hallway/firmware"
)
func main(){}
