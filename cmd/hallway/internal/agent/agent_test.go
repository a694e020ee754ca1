package agent

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An agent on loopback starts, makes a home, tells of it, stops, and leaves nothing
// running; started again it is the same node of the same home.
func TestAgentStartsStopsAndStartsAgain(t *testing.T) {
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.Interfaces, cfg.Name = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", []string{"lo"}, "TV"
	var first api.Status
	for round := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ready := make(chan string, 1)
		done := make(chan error, 1)
		go func() { done <- Run(ctx, cfg, Options{Version: "test", Ready: func(s string) { ready <- s }}) }()
		c := api.NewClient(<-ready)
		heard := make(chan error, 1)
		if round == 0 {
			if err := c.Do(ctx, "POST", "/home", map[string]string{"name": "Home"}, nil); err != nil {
				t.Fatal(err)
			}
		}
		var st api.Status
		if err := c.Do(ctx, "GET", "/status", nil, &st); err != nil || st.URI == "" {
			t.Fatalf("%+v %v", st, err)
		}
		if round == 0 {
			first = st
		} else if st.Node != first.Node || st.URI != first.URI {
			t.Errorf("after a restart it is %+v, before %+v", st, first)
		}
		go func() { heard <- c.Events(ctx, func(api.Event) error { return nil }) }()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := <-heard; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		c.Close()
	}
}
