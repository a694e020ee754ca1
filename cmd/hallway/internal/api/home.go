package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallway-home/hallway/devices"
)

// HomeBackend is the part of the Backend that shows and changes the home.
type HomeBackend interface {
	CreateHome(name string) (recovery string, err error)
	Home() (Home, error)
	History() ([]LogEntry, error)
	Remove(slug string) (Removal, error)
	ChangeMember(slug string, role devices.Role, class devices.Class) error
	Recover(code string, remove []string) error
	Checkpoint(code string) error
	Rename(slug, name, room string) error
	DeleteName(slug string) error
	SetRoom(name string) error
	SetGroup(slug, name string, members []string) error
	SetPerson(slug, name string, phones []string) error
	SetForeign(ForeignRequest) error
	SetRule(devices.Rule) error
	DeleteRule(devices.RuleKey) error
}

// Home is what this node knows of its home.
type Home struct {
	ID        devices.HomeID    `json:"id"`
	Name      string            `json:"name"`
	Domain    string            `json:"domain"`
	Epoch     uint64            `json:"epoch" doc:"number of roster edits"`
	Members   []Member          `json:"members"`
	Phones    []devices.Phone   `json:"phones" doc:"browsers with a key of their own, by person"`
	Foreign   []devices.Adopted `json:"foreign" doc:"foreign devices that have a name here"`
	Rules     []devices.Rule    `json:"rules"`
	Proposals []Proposal        `json:"proposals" doc:"owners that another owner wants removed"`
}

// Member is one node of the home.
type Member struct {
	Slug  string         `json:"slug"`
	Name  string         `json:"name"`
	Room  string         `json:"room,omitempty"`
	Class devices.Class  `json:"class"`
	Role  devices.Role   `json:"role"`
	Node  devices.NodeID `json:"node"`
}

// Proposal is a removal that waits.
type Proposal struct {
	Target string `json:"target" doc:"the owner to be removed"`
	By     string `json:"by" doc:"the owner who proposed it"`
}

// Removal says what became of the wish to remove a member.
type Removal struct {
	State string    `json:"state" enum:"removed,proposed"`
	Until time.Time `json:"until,omitzero" doc:"proposed: from then on this owner can carry it out alone"`
}

// LogEntry is one edit of the home.
type LogEntry struct {
	Number int    `json:"number" doc:"its place in the order in which edits count"`
	Hash   string `json:"hash"`
	Op     string `json:"op"`
	By     string `json:"by"`
	What   string `json:"what"`
	Void   string `json:"void,omitempty" doc:"why it has no effect"`
}

// ForeignRequest gives a foreign device a name.
type ForeignRequest struct {
	Slug     string        `json:"slug,omitempty" maxLength:"64" doc:"which one to change; empty makes one"`
	Name     string        `json:"name" minLength:"1" maxLength:"64"`
	Class    devices.Class `json:"class,omitempty" maxLength:"48"`
	URI      string        `json:"uri,omitempty" maxLength:"160"`
	Speakers []string      `json:"speakers" maxItems:"8" doc:"names of the devices that speak for it"`
}

type ruleKey struct {
	Subject string        `path:"subject" maxLength:"64" doc:"name of a device, room or person, or all"`
	Right   devices.Right `path:"right" enum:"call,view,dropin,door"`
}

// Created is what a home's birth gives, once.
type Created struct {
	Recovery string `json:"recovery" doc:"the recovery code; it is stored nowhere"`
}

func homeRoutes(a huma.API, b HomeBackend) {
	get(a, "home", "/home", "The home and its members", b.Home)
	answer(a, op("create-home", http.MethodPost, "/home", "Make a home; the recovery code is shown this once"), func(_ context.Context, in *struct {
		Body struct {
			Name string `json:"name" minLength:"1" maxLength:"64"`
		}
	}) (*out[Created], error) {
		code, err := b.CreateHome(in.Body.Name)
		return &out[Created]{Created{code}}, problem(err)
	})
	huma.Register(a, op("rename", http.MethodPatch, "/home/names/{slug}", "Rename something; its URI stays"), func(_ context.Context, in *struct {
		Slug string `path:"slug" maxLength:"64"`
		Body struct {
			Name string `json:"name,omitempty" maxLength:"64"`
			Room string `json:"room,omitempty" maxLength:"64" doc:"devices only: move it there"`
		}
	}) (*none, error) {
		return nil, problem(b.Rename(in.Slug, in.Body.Name, in.Body.Room))
	})
	huma.Register(a, op("set-room", http.MethodPost, "/home/rooms", "Make a room"), func(_ context.Context, in *struct {
		Body struct {
			Name string `json:"name" minLength:"1" maxLength:"64"`
		}
	}) (*none, error) {
		return nil, problem(b.SetRoom(in.Body.Name))
	})
	type named struct {
		Body struct {
			Slug    string   `json:"slug,omitempty" maxLength:"64" doc:"which one to change; empty makes one"`
			Name    string   `json:"name" minLength:"1" maxLength:"64"`
			Members []string `json:"members" maxItems:"32" doc:"names"`
		}
	}
	huma.Register(a, op("set-group", http.MethodPost, "/home/groups", "Make or change a group of names"), func(_ context.Context, in *named) (*none, error) {
		return nil, problem(b.SetGroup(in.Body.Slug, in.Body.Name, in.Body.Members))
	})
	huma.Register(a, op("set-person", http.MethodPost, "/home/persons", "Make or change a person and their phones"), func(_ context.Context, in *named) (*none, error) {
		return nil, problem(b.SetPerson(in.Body.Slug, in.Body.Name, in.Body.Members))
	})
	memberRoutes(a, b)
	ruleRoutes(a, b)
}

func memberRoutes(a huma.API, b HomeBackend) {
	answer(a, op("remove", http.MethodDelete, "/home/members/{slug}", "Remove a device for good, or propose so"), func(_ context.Context, in *bySlug) (*out[Removal], error) {
		r, err := b.Remove(in.Slug)
		return &out[Removal]{r}, problem(err)
	})
	huma.Register(a, op("change-member", http.MethodPatch, "/home/members/{slug}", "Give a member another role or class"), func(_ context.Context, in *struct {
		Slug string `path:"slug" maxLength:"64"`
		Body struct {
			Role  devices.Role  `json:"role,omitempty" enum:"owner,device"`
			Class devices.Class `json:"class,omitempty" maxLength:"48"`
		}
	}) (*none, error) {
		return nil, problem(b.ChangeMember(in.Slug, in.Body.Role, in.Body.Class))
	})
	huma.Register(a, op("recover", http.MethodPost, "/home/recover", "Make this device an owner by the recovery code, and remove lost ones"), func(_ context.Context, in *struct {
		Body struct {
			Code   string   `json:"code" maxLength:"100"`
			Remove []string `json:"remove,omitempty" maxItems:"128" doc:"names of members to remove"`
		}
	}) (*none, error) {
		return nil, problem(b.Recover(in.Body.Code, in.Body.Remove))
	})
	huma.Register(a, op("checkpoint", http.MethodPost, "/home/checkpoint", "Compact the home's history by the recovery code"), func(_ context.Context, in *struct {
		Body struct {
			Code string `json:"code" maxLength:"100"`
		}
	}) (*none, error) {
		return nil, problem(b.Checkpoint(in.Body.Code))
	})
	get(a, "home-log", "/home/log", "The edits of the home, in the order in which they count", b.History)
	huma.Register(a, op("delete-name", http.MethodDelete, "/home/names/{slug}", "End a room, group, person or foreign device; its name is not given anew"), func(_ context.Context, in *bySlug) (*none, error) {
		return nil, problem(b.DeleteName(in.Slug))
	})
}

func ruleRoutes(a huma.API, b HomeBackend) {
	huma.Register(a, op("set-rule", http.MethodPut, "/home/rules/{subject}/{right}", "Say who has a right on something"), func(_ context.Context, in *struct {
		Subject string        `path:"subject" maxLength:"64" doc:"name of a device, room or person, or all"`
		Right   devices.Right `path:"right" enum:"call,view,dropin,door"`
		Body    struct {
			Who   []string `json:"who" maxItems:"32" doc:"names, or all; none: nobody"`
			Hours string   `json:"hours,omitempty" maxLength:"11" doc:"the right exists only then, such as 07:00-22:00"`
		}
	}) (*none, error) {
		return nil, problem(b.SetRule(devices.Rule{Subject: in.Subject, Right: in.Right, Who: in.Body.Who, Hours: in.Body.Hours}))
	})
	huma.Register(a, op("delete-rule", http.MethodDelete, "/home/rules/{subject}/{right}", "End a rule"), func(_ context.Context, in *ruleKey) (*none, error) {
		return nil, problem(b.DeleteRule(devices.RuleKey{Subject: in.Subject, Right: in.Right}))
	})
	huma.Register(a, op("set-foreign", http.MethodPost, "/home/foreign", "Give a foreign device a name, or change it"), func(_ context.Context, in *struct{ Body ForeignRequest }) (*none, error) {
		return nil, problem(b.SetForeign(in.Body))
	})
}

// MemberOf shows a roster entry.
func MemberOf(m devices.Member) Member {
	return Member{m.Slug, m.Name, m.Room, m.Class, m.Role, m.Node}
}
