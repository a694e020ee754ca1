# Everything a developer runs. `make` shows the list.
SHELL := /bin/bash
GO ?= go
BUILD := build
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
GOLANGCI := $(BUILD)/bin/golangci-lint
GOLANGCI_VERSION := v2.15.0
APP := cmd/companion/dist/index.html
KEEP ?=
FUZZTIME ?= 2m
SOAK ?= 5m
CALLS ?= 10000
DRIFT ?= 10m
SIM_SEEDS ?= 10000
HOSTILE ?= 10m

.DEFAULT_GOAL := help
.PHONY: help build companion demo clips test unit e2e soak fuzz bench lint fmt cross packages reproduce deps clean pictures

help: ## show this list
	@printf 'Hallway: the screens, cameras and speakers of a home call each other by name.\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@printf '\n  KEEP=1 leaves the demo running; FUZZTIME=20s, SIM_SEEDS=300, HOSTILE=20s, CALLS=400, DRIFT=20s and SOAK=30s shorten the long runs.\n'

build: $(APP) ## build/hallway, as it ships
	@mkdir -p $(BUILD)
	$(GO) run ./firmware/cross -host $(BUILD)/hallway -version '$(VERSION)' -commit '$(COMMIT)'

companion: $(APP) ## the companion app, from cmd/companion into its dist; what is built has it in it (npm)

$(APP): $(filter-out cmd/companion/dist/%,$(shell git ls-files cmd/companion 2>/dev/null))
	@if command -v npm >/dev/null; then \
		cd cmd/companion && npm ci --ignore-scripts --no-audit --no-fund && npm run -s check && npm test --silent && npm run -s build; \
	else \
		echo 'npm is missing: what is built shows a page that says so instead of the companion (Debian: apt install npm)'; \
	fi

demo: deps build ## a small home on this machine: it finds itself, two rooms talk, the recordings are checked
	$(BUILD)/hallway demo --dir $(BUILD)/demo $(if $(KEEP),--keep)

clips: deps build ## only the clips of the demo, under build/clips
	$(BUILD)/hallway demo --clips --dir $(BUILD)

test: deps $(APP) ## every test; a summary at the end
	@scripts/test all

unit: ## tests of the packages alone, with the race detector
	@scripts/test unit

e2e: ## tests between processes in network namespaces (root)
	@scripts/test e2e

fuzz: ## each fuzz target for FUZZTIME
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

soak: fuzz ## fuzz targets, SIM_SEEDS simulated homes, calls and churn for SOAK, CALLS short calls, one of DRIFT, attacks for HOSTILE, every guarded check taken out, a build from nothing
	HALLWAY_SIM_SEEDS=$(SIM_SEEDS) HALLWAY_SOAK=$(SOAK) HALLWAY_CALLS=$(CALLS) HALLWAY_DRIFT=$(DRIFT) HALLWAY_CHURN=$(SOAK) HALLWAY_HOSTILE=$(HOSTILE) scripts/test soak

bench: deps build ## the budgets, measured: a table and build/bench.json
	$(GO) run ./test/bench -hallway $(BUILD)/hallway -out $(BUILD)/bench.json

pictures: deps $(APP) ## the pictures of the README, drawn anew from the demo's home (root)
	REQUIRE_PEERS=1 $(GO) test -count=1 -run 'TestDemoInABrowserOfTheMachine/namespaces' ./test/e2e
	@mkdir -p docs/screens
	@for p in house-phone call-phone panel-tablet house-tv; do \
		ffmpeg -v error -y -i $(BUILD)/screens/demo-$$p.png -vf "crop=iw:'if(lt(iw,ih),844,ih)':0:0,scale='min(1280,iw)':-2:flags=lanczos,split[a][b];[a]palettegen=max_colors=160[p];[b][p]paletteuse=dither=none" -update 1 docs/screens/$$p.png && \
		test "$$(stat -c %s docs/screens/$$p.png)" -lt 60000 || { echo "$$p.png failed, or is larger than 60 kB"; exit 1; }; \
	done

lint: $(GOLANGCI) ## vet, golangci-lint and formatting
	$(GO) vet ./...
	$(GO) vet -tags hallwaytest ./...
	$(GOLANGCI) run --timeout 10m
	cd firmware/pack && $(GO) vet . && $(CURDIR)/$(GOLANGCI) run --timeout 10m --config ../../.golangci.yml
	@if command -v npm >/dev/null; then cd cmd/companion && { [ -d node_modules ] || npm ci --ignore-scripts --no-audit --no-fund; } && npm run -s check; else echo 'npm is missing: the companion was not type-checked'; fi
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run: make fmt'; exit 1; }

$(GOLANGCI):
	@mkdir -p $(BUILD)/bin
	@if command -v golangci-lint >/dev/null && golangci-lint version 2>/dev/null | grep -q '$(GOLANGCI_VERSION:v%=%)'; then \
		ln -sf "$$(command -v golangci-lint)" $@; \
	else \
		echo 'building golangci-lint $(GOLANGCI_VERSION) (about two minutes, once)'; \
		GOBIN=$(CURDIR)/$(BUILD)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION); \
	fi

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

cross: $(APP) ## every firmware target, with the size budget and checksums
	$(GO) run ./firmware/cross -out $(BUILD)/firmware -version '$(VERSION)' -commit '$(COMMIT)'

packages: cross ## deb, ipk, an OCI image and lists of what is inside, in build/packages
	$(GO) -C firmware/pack run . -in $(CURDIR)/$(BUILD)/firmware -out $(CURDIR)/$(BUILD)/packages -version '$(VERSION)' -epoch '$(EPOCH)'

reproduce: packages ## everything that ships built again, from nothing and in another folder: the same bytes
	@scripts/reproduce '$(BUILD)' '$(VERSION)' '$(COMMIT)' '$(EPOCH)'

deps: ## install what is missing (apt, as root or with sudo), or say what is
	@scripts/deps

clean: ## remove what was built
	rm -rf $(BUILD)
