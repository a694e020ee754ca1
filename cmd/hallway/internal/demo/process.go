package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/test/netlab"
)

// agentProc is one device of the demo.
type agentProc struct {
	name, class, room, dir string
	config                 string // file; empty without
	clip                   clipSpec

	cmd  *exec.Cmd
	api  *api.Client
	host *netlab.Host
	port int
	done chan struct{}
	err  error // why it ended; valid once done is closed
}

// network is where the agents live: namespaces, or loopback where those are not
// allowed.
type network interface {
	describe() string
	prepare(a *agentProc, index int) (args []string, err error)
	command(ctx context.Context, a *agentProc, exe string, args []string) *exec.Cmd
	seed(a *agentProc) string // what a join token needs to find the owner, if multicast does not
	door() (*door, error)
	open(d *door, to *agentProc) error // lets a browser on this machine in, to the door and to the media of all agents
	close() error
}

func newNetwork(loopback bool) (network, error) {
	if loopback {
		return &loopbackNet{}, nil
	}
	lab, err := netlab.New()
	if errors.Is(err, netlab.ErrUnsupported) {
		return &loopbackNet{}, nil
	}
	if err != nil {
		return nil, err
	}
	segment, err := lab.FreeSegment()
	if err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return &namespaces{lab: lab, segment: segment}, nil
}

type namespaces struct {
	lab     *netlab.Lab
	segment *netlab.Segment
	cable   *netlab.Machine // nil until somebody may come in
}

func (n *namespaces) describe() string { return "one namespace for each device, on a private bridge" }

func (n *namespaces) prepare(a *agentProc, _ int) (args []string, err error) {
	a.host, err = n.lab.HostOn(n.segment, a.class, netlab.Both)
	return nil, err
}

func (n *namespaces) command(ctx context.Context, a *agentProc, exe string, args []string) *exec.Cmd {
	return a.host.Command(ctx, exe, args...)
}

func (n *namespaces) seed(*agentProc) string { return "" }

func (n *namespaces) door() (*door, error) { return newDoor() }

func (n *namespaces) open(d *door, to *agentProc) (err error) {
	if n.cable, err = n.lab.Machine(n.segment); err != nil {
		return err
	}
	d.lead(to.host.NS)
	return nil
}

func (n *namespaces) close() error {
	var err error
	if n.cable != nil {
		err = n.cable.Close()
	}
	return errors.Join(err, n.lab.Close())
}

// loopbackNet runs all agents on 127.0.0.1 with a port each; they name each other as
// peers, because multicast on loopback is not a matter of course.
type loopbackNet struct{}

const loopbackPort = 15061

func (*loopbackNet) describe() string {
	return "loopback with static peers (namespaces need root and iproute2)"
}

func (*loopbackNet) prepare(a *agentProc, index int) ([]string, error) {
	a.port = loopbackPort + index
	args := []string{"--interface", "lo", "--listen", fmt.Sprintf("127.0.0.1:%d", a.port)}
	for i := range index {
		args = append(args, "--peer", fmt.Sprintf("127.0.0.1:%d", loopbackPort+i))
	}
	return args, nil
}

func (*loopbackNet) command(ctx context.Context, _ *agentProc, exe string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

func (*loopbackNet) seed(a *agentProc) string { return fmt.Sprintf("127.0.0.1:%d", a.port) }

// door is only a port: the device itself listens there.
func (*loopbackNet) door() (*door, error) {
	d, err := newDoor()
	if err != nil {
		return nil, err
	}
	d.https = "127.0.0.1:0" // another program of the machine may have the usual port
	return d, d.ln.Close()
}

// open has nothing to do: the device itself is at the door.
func (*loopbackNet) open(*door, *agentProc) error { return nil }

func (*loopbackNet) close() error { return nil }

// start runs the agent and waits until its API answers.
func (a *agentProc) start(ctx context.Context, n network, index int, token string) error {
	if err := os.MkdirAll(a.dir, 0o755); err != nil { //nolint:gosec // people look into it
		return err
	}
	args := []string{
		"up", "--data", a.dir, "--name", a.name, "--class", a.class, "--room", a.room,
		"--source-clip", a.clip.File, "--sink-record", filepath.Join(a.dir, "recordings"),
	}
	extra, err := n.prepare(a, index)
	if err != nil {
		return err
	}
	args = append(args, extra...)
	if a.config != "" {
		args = append(args, "--config", a.config)
	}
	if token != "" {
		args = append(args, "--join", token)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(a.dir, "log.txt"))
	if err != nil {
		return err
	}
	a.cmd = n.command(ctx, a, exe, args)
	a.cmd.Stdout, a.cmd.Stderr = logFile, logFile
	if err := a.cmd.Start(); err != nil {
		return err
	}
	a.done = make(chan struct{})
	go func() {
		a.err = a.cmd.Wait()
		_ = logFile.Close()
		close(a.done)
	}()
	a.api = api.NewClient(filepath.Join(a.dir, "hallway.sock"))
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if a.api.Do(ctx, http.MethodGet, "/status", nil, nil) == nil {
			return nil
		}
		select {
		case <-a.done:
			return fmt.Errorf("the %s ended at once: %w", a.name, a.err)
		default:
		}
	}
	return fmt.Errorf("the %s did not start within 10 s", a.name)
}

func (a *agentProc) stop() {
	if a.cmd == nil || a.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-a.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL)
		<-a.done
	}
}
