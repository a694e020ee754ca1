package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallway-home/hallway/devices"
)

// PhoneBackend lets phones in, and shows by which certificate the companion is served.
type PhoneBackend interface {
	OpenPhones(PhoneRequest) (PhoneWindow, error)
	Phones() PhoneWindow
	ConfirmPhone(yes bool) error
	ClosePhones() error
	ChangePerson(slug string, role devices.Role, until time.Time) error
	Trust() (Trust, error)
	RenewTrust() (Trust, error)
}

// Doors are the routes of browsers, which the HTTPS server answers.
type Doors interface {
	Challenge(ctx context.Context) (Challenge, error)
	Login(ctx context.Context, in LoginRequest) (cookie string, s Session, err error)
	Session(ctx context.Context) Session
	Logout(ctx context.Context) (cookie string)
	PairPhone(ctx context.Context, in PairPhoneRequest) (PhoneResult, error)
	Carrier
}

// PhoneRequest opens a window for one phone.
type PhoneRequest struct {
	Person  string       `json:"person,omitempty" maxLength:"64" doc:"somebody known, who gets another phone; else name and role make a person"`
	Name    string       `json:"name,omitempty" maxLength:"64"`
	Role    devices.Role `json:"role,omitempty" enum:"owner,member,guest" doc:"owner for the first person of a home, else member"`
	Until   time.Time    `json:"until,omitzero" doc:"guest only: when their rights end"`
	Room    string       `json:"room,omitempty" maxLength:"64" doc:"somebody new who is a wall panel: the name of its room, which may be new"`
	Minutes int          `json:"minutes,omitempty" minimum:"0" maximum:"15"`
	Trusted bool         `json:"trusted,omitempty" doc:"the phone trusts the home's certificate already and its words were compared: nobody needs to confirm it"`
}

// PhoneWindow is an open window for a phone, or the last one.
type PhoneWindow struct {
	State  string       `json:"state" enum:"open,waiting,paired,refused,closed"`
	URL    string       `json:"url,omitempty" doc:"what the phone opens; shown as a QR code"`
	Code   string       `json:"code,omitempty" doc:"for typing instead"`
	Until  time.Time    `json:"until,omitzero"`
	Person string       `json:"person,omitempty"`
	Role   devices.Role `json:"role,omitempty"`
	Phone  string       `json:"phone,omitempty" doc:"name of the phone that came"`
	Words  string       `json:"words,omitempty" doc:"of that phone's key; the phone shows the same"`
	Slug   string       `json:"slug,omitempty" doc:"paired: what the phone is called in the home"`
}

// Trust is by what a browser knows the home.
type Trust struct {
	URL         string `json:"url" doc:"the companion's address, the same on every device"`
	Words       string `json:"words" doc:"of the certificate authority, to compare with the phone's screen"`
	Fingerprint string `json:"fingerprint" doc:"SHA-256"`
	Own         bool   `json:"own_files" doc:"this device shows certificate files of its own instead"`
	Ready       bool   `json:"ready" doc:"whether this device has a certificate yet"`
}

// Challenge is what a phone signs to log in.
type Challenge struct {
	Challenge string         `json:"challenge" doc:"base64url; good for a minute, once"`
	Home      devices.HomeID `json:"home"`
}

// LoginRequest is a signature by a phone's key.
type LoginRequest struct {
	Key       []byte `json:"key" maxLength:"64" doc:"the compressed P-256 key (SEC 1), base64"`
	Challenge string `json:"challenge" maxLength:"200"`
	Signature []byte `json:"signature" maxLength:"100" doc:"raw r||s over SHA-256 of: hallway-login/1, NUL, host and port of the origin, NUL, home, NUL, challenge; base64"`
}

// Session says who is logged in.
type Session struct {
	Person string         `json:"person"`
	Name   string         `json:"name"`
	Role   string         `json:"role" enum:"guest,member,owner"`
	Phone  devices.NodeID `json:"phone"`
	CSRF   string         `json:"csrf" doc:"the header X-CSRF-Token of every request that changes something"`
}

// PairPhoneRequest is a phone that knows a window's secret.
type PairPhoneRequest struct {
	Key   []byte `json:"key" maxLength:"64" doc:"the compressed P-256 key (SEC 1), base64"`
	Name  string `json:"name" maxLength:"64" doc:"what the phone is called"`
	Proof []byte `json:"proof" maxLength:"64" doc:"HMAC-SHA256 with the secret or the code's digits, over: hallway-phone/1, NUL, key, name; base64"`
}

// PhoneResult says how far a phone got.
type PhoneResult struct {
	State string `json:"state" enum:"waiting,paired" doc:"waiting: ask again until a person has confirmed it"`
	Words string `json:"words" doc:"of the phone's key"`
}

// phoneRoutes registers what concerns phones and trust.
func phoneRoutes(a huma.API, b PhoneBackend) {
	answer(a, op("open-phones", http.MethodPost, "/phones/window", "Open a window for one phone; on an owner's device"), func(ctx context.Context, in *struct{ Body PhoneRequest }) (*out[PhoneWindow], error) {
		if in.Body.Trusted && !CallerOf(ctx).Via.IsZero() { // check: a person confirms
			return nil, problem(fmt.Errorf("%w: the device that carried this would see the secret, so a person must confirm the phone", ErrInput))
		}
		w, err := b.OpenPhones(in.Body)
		return &out[PhoneWindow]{w}, problem(err)
	})
	get(a, "phones", "/phones/window", "The window for a phone", func() (PhoneWindow, error) { return b.Phones(), nil })
	huma.Register(a, op("confirm-phone", http.MethodPost, "/phones/window/confirm", "Let the phone in that waits, or not"), func(_ context.Context, in *struct {
		Body struct {
			Accept bool `json:"accept"`
		}
	}) (*none, error) {
		return nil, problem(b.ConfirmPhone(in.Body.Accept))
	})
	huma.Register(a, op("close-phones", http.MethodDelete, "/phones/window", "Close the window for a phone"), func(context.Context, *struct{}) (*none, error) {
		return nil, problem(b.ClosePhones())
	})
	huma.Register(a, op("change-person", http.MethodPatch, "/home/persons/{slug}", "Give a person another role and last day"), func(_ context.Context, in *struct {
		Slug string `path:"slug" maxLength:"64"`
		Body struct {
			Role  devices.Role `json:"role" enum:"owner,member,guest"`
			Until time.Time    `json:"until,omitzero"`
		}
	}) (*none, error) {
		return nil, problem(b.ChangePerson(in.Slug, in.Body.Role, in.Body.Until))
	})
	get(a, "trust", "/home/trust", "By what a browser knows the home", b.Trust)
	answered(a, op("renew-trust", http.MethodPost, "/home/trust", "Make a new certificate authority; every phone must trust it anew"), b.RenewTrust)
}

func answered[T any](a huma.API, o huma.Operation, f func() (T, error)) {
	answer(a, o, func(context.Context, *struct{}) (*out[T], error) {
		v, err := f()
		return &out[T]{v}, problem(err)
	})
}

// session is an answer that sets or ends the session's cookie.
type session struct {
	Cookie string `header:"Set-Cookie"`
	Body   Session
}

// doorRoutes registers how browsers come in and go.
func doorRoutes(a huma.API, d Doors) {
	answer(a, op("challenge", http.MethodPost, "/session/challenge", "What a phone signs to log in"), func(ctx context.Context, _ *struct{}) (*out[Challenge], error) {
		c, err := d.Challenge(ctx)
		return &out[Challenge]{c}, problem(err)
	})
	huma.Register(a, op("login", http.MethodPost, "/session", "Log in by a phone's key; sets the session's cookie"), func(ctx context.Context, in *struct{ Body LoginRequest }) (*session, error) {
		cookie, s, err := d.Login(ctx, in.Body)
		if err != nil {
			return nil, problem(err)
		}
		return &session{cookie, s}, nil
	})
	answer(a, op("whoami", http.MethodGet, "/session", "Who is logged in"), func(ctx context.Context, _ *struct{}) (*out[Session], error) {
		return &out[Session]{d.Session(ctx)}, nil
	})
	huma.Register(a, op("logout", http.MethodDelete, "/session", "Log out"), func(ctx context.Context, _ *struct{}) (*struct {
		Cookie string `header:"Set-Cookie"`
	}, error) {
		return &struct {
			Cookie string `header:"Set-Cookie"`
		}{d.Logout(ctx)}, nil
	})
	answer(a, op("pair-phone", http.MethodPost, "/phones", "Come in as a phone that knows a window's secret"), func(ctx context.Context, in *struct{ Body PairPhoneRequest }) (*out[PhoneResult], error) {
		r, err := d.PairPhone(ctx, in.Body)
		return &out[PhoneResult]{r}, problem(err)
	})
}
