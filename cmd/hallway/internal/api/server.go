package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// maxRequest bounds a request's body: names and codes, nothing larger.
	maxRequest = 64 << 10
	// prefix of all routes.
	prefix = Prefix
	// aliveEvery is how often a browser's stream says that it lives: a node that lost its power
	// sends no goodbye.
	aliveEvery = 2 * time.Second
	// Prefix of all routes, for who serves them over HTTPS.
	Prefix = "/api/v1"
)

// statusOf maps errors to HTTP, in this one place.
func statusOf(err error) int {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(sessions.ErrUnknown, sessions.ErrNoSuchCall, trust.ErrNotFound):
		return http.StatusNotFound
	case is(trust.ErrNotOwner, trust.ErrLastOwner, trust.ErrRemoved, trust.ErrSenior, trust.ErrNoSecond, trust.ErrRecovery, trust.ErrPhoneLost, pairing.ErrWrongCode, pairing.ErrDeclined, ErrLogin):
		return http.StatusForbidden
	case is(trust.ErrNoHome, sessions.ErrNoHome, trust.ErrHomeExists, sessions.ErrNotRinging, sessions.ErrNotActive, sessions.ErrNoCommonCodec, sessions.ErrAlone, pairing.ErrBusy, pairing.ErrClosed, trust.ErrFull, trust.ErrPhones, trust.ErrBehind, trust.ErrStillWaits, trust.ErrNoneChanged):
		return http.StatusConflict
	case is(pairing.ErrCode, trust.ErrCode, trust.ErrEditForm, trust.ErrEditSize, trust.ErrRule, ErrInput, ErrCamera):
		return http.StatusUnprocessableEntity
	case is(sessions.ErrTooMany, pairing.ErrGuessing, ErrOften):
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// ErrInput marks errors that the caller can mend by asking differently.
var ErrInput = errors.New("the request cannot be carried out as it is")

// Why a browser is not let in.
var (
	ErrLogin = errors.New("this phone is not known to the home; pair it first")
	ErrOften = errors.New("too many attempts from there; wait a minute")
)

// problem makes the answer of an error, with its status; nil of none.
func problem(err error) error {
	if err == nil {
		return nil
	}
	return huma.NewError(statusOf(err), err.Error())
}

type out[T any] struct{ Body T }

// reply is what huma sees of every out: each type it is instantiated for costs 20 kB of
// program.
type reply struct{ Body any }

type none struct{}

type byID struct {
	ID string `path:"id" doc:"the call's ID, or the beginning of it" maxLength:"64"`
}

type bySlug struct {
	Slug string `path:"slug" maxLength:"64"`
}

// NewHandler makes the API's routes. Those of browsers come with doors; nil leaves them out.
func NewHandler(b Backend, doors Doors, version string) (http.Handler, huma.API) {
	mux := http.NewServeMux()
	conf := huma.DefaultConfig("Hallway", version)
	conf.Info.Description = wishHelp
	conf.OpenAPIPath, conf.DocsPath, conf.SchemasPath = prefix+"/openapi", "", ""
	conf.CreateHooks = nil // no $schema links: the socket has no host name
	a := humago.New(mux, conf)
	a.UseMiddleware(guard(a))
	if doors != nil {
		a.UseMiddleware(carrying(doors))
	}
	reads(a, b)
	callRoutes(a, b)
	homeRoutes(a, b)
	pairRoutes(a, b)
	adoptRoute(a, b)
	phoneRoutes(a, b)
	if doors != nil {
		doorRoutes(a, doors)
	}
	eventRoute(a, b)
	return mux, a
}

func op(id, method, path, summary string) huma.Operation {
	return withAccess(huma.Operation{OperationID: id, Method: method, Path: prefix + path, Summary: summary, MaxBodyBytes: maxRequest})
}

// answer registers a route that returns a T, and describes it as such.
func answer[I, T any](a huma.API, o huma.Operation, f func(context.Context, *I) (*out[T], error)) {
	field, _ := reflect.TypeFor[out[T]]().FieldByName("Body")
	schema := huma.SchemaFromField(a.OpenAPI().Components.Schemas, field, o.OperationID+"Response")
	o.Responses = map[string]*huma.Response{strconv.Itoa(http.StatusOK): {Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}}
	huma.Register(a, o, func(ctx context.Context, in *I) (*reply, error) {
		v, err := f(ctx, in)
		if err != nil {
			return nil, err
		}
		return &reply{v.Body}, nil
	})
}

func get[T any](a huma.API, id, path, summary string, f func() (T, error)) {
	answer(a, op(id, http.MethodGet, path, summary), func(context.Context, *struct{}) (*out[T], error) {
		v, err := f()
		return &out[T]{v}, problem(err)
	})
}

func reads(a huma.API, b Backend) {
	get(a, "status", "/status", "The agent and its place in the home", func() (Status, error) { return b.Status(), nil })
	get(a, "process", "/process", "Goroutines, memory and open files of the agent", func() (Process, error) { return b.Process(), nil })
	get(a, "devices", "/devices", "Members of the home, and what else is in sight", func() (Devices, error) {
		s := b.Directory()
		return Devices{orEmpty(s.Devices), orEmpty(s.Spoken), orEmpty(s.Panels), orEmpty(s.Foreign)}, nil
	})
	get(a, "rooms", "/rooms", "Rooms, groups and persons", func() (Rooms, error) {
		s := b.Directory()
		persons := make([]PersonNow, 0, len(s.Persons))
		for _, p := range s.Persons {
			persons = append(persons, PersonNow{p, s.Presence(p.Slug), s.WakesBy(p.Slug)})
		}
		return Rooms{orEmpty(s.Rooms), orEmpty(s.Groups), persons}, nil
	})
	get(a, "volume", "/volume", "How loud this device plays", func() (Volume, error) { return b.Volume(), nil })
	answer(a, op("set-volume", http.MethodPut, "/volume", "Make this device louder or softer"), func(_ context.Context, in *struct {
		Body struct {
			Level int `json:"level" minimum:"0" maximum:"100"`
		}
	}) (*out[Volume], error) {
		v, err := b.SetVolume(in.Body.Level)
		return &out[Volume]{v}, problem(err)
	})
	get(a, "dnd", "/dnd", "Whether this device refuses calls", func() (DND, error) { return b.DND(), nil })
	answer(a, op("set-dnd", http.MethodPut, "/dnd", "Have this device refuse calls, or take them again"), func(_ context.Context, in *struct{ Body DND }) (*out[DND], error) {
		d, err := b.SetDND(in.Body.On)
		return &out[DND]{d}, problem(err)
	})
	get(a, "profiles", "/profiles", "Classes of device", func() (Profiles, error) {
		p, err := profiles.All()
		return Profiles{p}, err
	})
	answer(a, op("resolve", http.MethodGet, "/resolve/{slug}", "What a name means now"), func(_ context.Context, in *bySlug) (*out[devices.Resolution], error) {
		r, ok := b.Directory().Resolve(devices.Slug(in.Slug))
		if !ok {
			return nil, problem(fmt.Errorf("%q: %w", in.Slug, trust.ErrNotFound))
		}
		return &out[devices.Resolution]{r}, nil
	})
	answer(a, op("doctor", http.MethodGet, "/doctor", "What the agent finds wrong"), func(ctx context.Context, _ *struct{}) (*out[[]Check], error) {
		return &out[[]Check]{orEmpty(b.Doctor(ctx))}, nil
	})
	answer(a, op("diagnose", http.MethodGet, "/doctor/call", "Whether one device can call another, leg by leg; nobody is rung"), func(ctx context.Context, in *struct {
		From string `query:"from" maxLength:"200" doc:"a device; empty: this one"`
		To   string `query:"to" minLength:"1" required:"true" maxLength:"200" doc:"device, room, group or person"`
	}) (*out[Diagnosis], error) {
		d, err := b.Diagnose(ctx, in.From, in.To)
		d.Legs = orEmpty(d.Legs)
		return &out[Diagnosis]{d}, problem(err)
	})
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func callRoutes(a huma.API, b Backend) {
	get(a, "calls", "/calls", "Living and recent calls", func() ([]sessions.CallInfo, error) { return orEmpty(b.Calls()), nil })
	answer(a, op("call", http.MethodGet, "/calls/{id}", "One call"), func(_ context.Context, in *byID) (*out[sessions.CallInfo], error) {
		c, err := b.Call(in.ID)
		return &out[sessions.CallInfo]{c}, problem(err)
	})
	answer(a, op("start-call", http.MethodPost, "/calls", "Call a device, room, group or person"), func(_ context.Context, in *struct {
		Body struct {
			To    string `json:"to" maxLength:"200" doc:"name or SIP URI"`
			Video bool   `json:"video,omitempty"`
		}
	}) (*out[sessions.CallInfo], error) {
		c, err := b.StartCall(in.Body.To, in.Body.Video)
		return &out[sessions.CallInfo]{c}, problem(err)
	})
	answer(a, op("change-call", http.MethodPatch, "/calls/{id}", "Hold, mute, add or drop the picture"), func(ctx context.Context, in *struct {
		ID   string `path:"id" doc:"the call's ID, or the beginning of it" maxLength:"64"`
		Body CallChange
	}) (*out[sessions.CallInfo], error) {
		c, err := b.ChangeCall(ctx, in.ID, in.Body)
		return &out[sessions.CallInfo]{c}, problem(err)
	})
	for _, r := range []struct {
		id, method, path, summary string
		f                         func(string) error
	}{
		{"answer", http.MethodPost, "/calls/{id}/answer", "Accept a ringing call", b.Answer},
		{"decline", http.MethodPost, "/calls/{id}/decline", "Refuse a ringing call", b.Decline},
		{"hangup", http.MethodDelete, "/calls/{id}", "End a call", b.Hangup},
	} {
		huma.Register(a, op(r.id, r.method, r.path, r.summary), func(_ context.Context, in *byID) (*none, error) {
			return nil, problem(r.f(in.ID))
		})
	}
}

func pairRoutes(a huma.API, b Backend) {
	get(a, "pairing", "/pair", "The pairing window of this device", func() (PairState, error) { return b.Pairing(), nil })
	type minutes struct {
		Body struct {
			Minutes int    `json:"minutes,omitempty" minimum:"0" maximum:"15"`
			Seed    string `json:"seed,omitempty" maxLength:"100" doc:"invite only: host:port of this node, for networks without multicast"`
		}
	}
	answer(a, op("open-pairing", http.MethodPost, "/pair", "Show a code, so that an owner can add this device"), func(_ context.Context, in *minutes) (*out[PairState], error) {
		s, err := b.OpenPairing(in.Body.Minutes)
		return &out[PairState]{s}, problem(err)
	})
	huma.Register(a, op("close-pairing", http.MethodDelete, "/pair", "Close the window"), func(context.Context, *struct{}) (*none, error) {
		return nil, problem(b.ClosePairing())
	})
	answer(a, op("identify", http.MethodPost, "/add/identify", "Prove a device's code and hear what it is; it then waits 3 minutes for add with the same code"), func(ctx context.Context, in *struct{ Body AddRequest }) (*out[Candidate], error) {
		c, err := b.Identify(ctx, in.Body)
		return &out[Candidate]{c}, problem(err)
	})
	answer(a, op("add", http.MethodPost, "/add", "Admit a device that shows a code"), func(ctx context.Context, in *struct{ Body AddRequest }) (*out[Member], error) {
		m, err := b.Add(ctx, in.Body)
		return &out[Member]{MemberOf(m)}, problem(err)
	})
	answer(a, op("invite", http.MethodPost, "/invite", "Make a one-time join token"), func(_ context.Context, in *minutes) (*out[InviteState], error) {
		s, err := b.Invite(in.Body.Minutes, in.Body.Seed)
		return &out[InviteState]{s}, problem(err)
	})
}

func eventRoute(a huma.API, b Backend) {
	o := op("events", http.MethodGet, "/events", "Changes of directory, calls and pairing, as they happen")
	o.Middlewares = huma.Middlewares{openStream}
	sse.Register(a, o,
		map[string]any{"event": Event{}, "alive": Alive{}}, func(ctx context.Context, _ *struct{}, send sse.Sender) {
			sees := CallerOf(ctx).Access
			beat := time.NewTicker(aliveEvery)
			defer beat.Stop()
			if sees == AsLocal { // a socket does not lose its other end silently
				beat.Stop()
			}
			feed := b.Events(ctx)
			for {
				var say any
				select {
				case e, ok := <-feed:
					if !ok {
						return
					}
					if sees < AsMember && e.Kind != "directory" { // a guest sees who is there, not who calls
						continue
					}
					say = e
				case <-beat.C:
					say = Alive{}
				}
				if send.Data(say) != nil {
					return
				}
			}
		})
}

// openStream sends the head of a stream at once: a browser calls it open then, not with the
// first event.
func openStream(ctx huma.Context, next func(huma.Context)) {
	ctx.SetHeader("Content-Type", "text/event-stream")
	ctx.SetHeader("Cache-Control", "no-store")
	if _, err := ctx.BodyWriter().Write([]byte(": open\n\n")); err != nil {
		return
	}
	if f, ok := ctx.BodyWriter().(http.Flusher); ok {
		f.Flush()
	}
	next(ctx)
}

// Listen takes the Unix socket. A socket left by a dead agent is replaced; a living
// one is an error.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another agent already serves %s; stop it, or choose another folder with --data", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace the old socket %s: %w", path, err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the API at %s: %w", path, err)
	}
	return ln, os.Chmod(path, 0o600)
}

// Serve runs the API's routes for the person at the device until ctx ends.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	local := WithCaller(ctx, Caller{Access: AsLocal})
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return local },
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
