// Package cli owns the command line: commands, tables, exit codes. Commands speak to the
// running agent over its Unix socket with the same HTTP API that the companion uses; only
// `up`, `demo` and the local checks of `doctor` do work of their own.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
)

// Exit codes; docs/cli.md lists them.
const (
	ExitOK          = 0
	ExitError       = 1 // something failed
	ExitUsage       = 2 // the command line or configuration makes no sense
	ExitNoAgent     = 3 // no agent answers
	ExitNotFound    = 4 // no such name or call
	ExitForbidden   = 5 // not allowed, or a wrong code
	ExitNoAnswer    = 6 // busy, declined, nobody answered
	ExitUnreachable = 7 // the device cannot be reached
	ExitNoCodec     = 8 // the devices share no way to send sound or picture
)

// exitError carries an exit code with its sentence.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }

// app is one invocation.
type app struct {
	out, err io.Writer
	build    Build
	json     bool
	config   string
	data     string
	socket   string
	overlay  func(*config.Config) // flags of `up`
	begun    bool                 // the command line made sense, and a command runs
}

// Main runs the command line and returns the exit code.
func Main(args []string, build Build, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: stdout, err: stderr, build: build}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return ExitOK // done, or ended by the person who watched
	}
	if !a.begun { // cobra itself found the fault: an unknown command, or the wrong number of names
		if !strings.Contains(err.Error(), "usage:") {
			err = fmt.Errorf("%w; `hallway --help` lists the commands", err)
		}
		err = usage(err)
		a.json = a.json || slices.Contains(args, "--json") // flags may not have been read
	}
	if a.json {
		_ = json.NewEncoder(stderr).Encode(map[string]any{"error": err.Error(), "exit": exitCode(err)})
	} else {
		_, _ = fmt.Fprintln(stderr, "hallway: "+err.Error())
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var e exitError
	var p api.Problem
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, api.ErrNoAgent):
		return ExitNoAgent
	case errors.As(err, &p):
		switch p.Status {
		case http.StatusNotFound:
			return ExitNotFound
		case http.StatusForbidden:
			return ExitForbidden
		case http.StatusUnprocessableEntity, http.StatusBadRequest:
			return ExitUsage
		}
	}
	return ExitError
}

func usage(err error) error { return exitError{ExitUsage, err} }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "hallway", Short: "The screens, cameras and speakers of a home call each other by name",
		SilenceUsage: true, SilenceErrors: true,
		Long: "Hallway lets every screen, camera, speaker and doorbell in a home call every other one by name,\n" +
			"with no server, no cloud and no PBX. `hallway up` runs the agent; every other command speaks to it.",
	}
	root.PersistentPreRun = func(*cobra.Command, []string) { a.begun = true }
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print JSON for programs")
	f.StringVar(&a.config, "config", "", "configuration file (default ./hallway.yaml, then /etc/hallway/hallway.yaml)")
	f.StringVar(&a.data, "data", "", "data folder of the agent (HALLWAY_DATA)")
	f.StringVar(&a.socket, "socket", "", "socket of the agent (default hallway.sock in the data folder)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(a.upCmd(), a.devicesCmd(), a.roomsCmd(), a.resolveCmd(), a.callCmd(), a.callsCmd(),
		a.decideCmd("answer", "Accept a ringing call"), a.decideCmd("decline", "Refuse a ringing call"), a.decideCmd("hangup", "End a call"),
		a.changeCmd("hold", "Put a call on hold: nothing is sent or received", map[string]any{"hold": true}, "On hold."),
		a.changeCmd("resume", "Take a call back from hold", map[string]any{"hold": false}, "The call goes on."),
		a.changeCmd("mute", "Send no sound in a call", map[string]any{"mute": true}, "Muted."),
		a.changeCmd("unmute", "Send sound again", map[string]any{"mute": false}, "Heard again."), a.videoCmd(),
		a.pairCmd(), a.addCmd(), a.inviteCmd(), a.phoneCmd(), a.adoptCmd(), a.homeCmd(), a.profilesCmd(), a.pipelinesCmd(), a.volumeCmd(), a.dndCmd(), a.doctorCmd(), a.configCmd(), a.demoCmd(), a.versionCmd())
	return root
}

// load reads and checks the configuration.
func (a *app) load() (config.Config, error) {
	c, err := config.Load(a.config, os.LookupEnv)
	if err != nil {
		return c, usage(err)
	}
	if a.data != "" {
		c.Data = a.data
	}
	if a.overlay != nil {
		a.overlay(&c)
	}
	if err := c.Check(); err != nil {
		return c, usage(err)
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return c, err
	}
	return c, nil
}

// client speaks to the agent.
func (a *app) client() (*api.Client, error) {
	if a.socket != "" {
		return api.NewClient(a.socket), nil
	}
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	return api.NewClient(c.Socket()), nil
}

// ask sends one request and decodes the answer.
func ask[T any](ctx context.Context, a *app, method, path string, in any) (T, error) {
	var v T
	c, err := a.client()
	if err != nil {
		return v, err
	}
	return v, c.Do(ctx, method, path, in, &v)
}

// do sends one request whose answer is empty, and says what happened.
func (a *app) do(ctx context.Context, method, path string, in any, said string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, method, path, in, nil); err != nil {
		return err
	}
	return a.show(map[string]bool{"ok": true}, func() { a.say("%s", said) })
}

// show prints v as JSON, or calls human.
func (a *app) show(v any, human func()) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(v)
	}
	human()
	return nil
}

func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format+"\n", args...) }
