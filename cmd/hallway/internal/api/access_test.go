package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

func operations(a huma.API) map[string]*huma.Operation {
	out := map[string]*huma.Operation{}
	for _, item := range a.OpenAPI().Paths {
		for _, o := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if o != nil {
				out[o.OperationID] = o
			}
		}
	}
	return out
}

func TestAccessIsOneTable(t *testing.T) {
	_, a := NewHandler(&fake{}, doors{}, "0")
	ops := operations(a)
	for id, least := range access() {
		o := ops[id]
		if o == nil {
			t.Errorf("the table has a line for %q, which is no operation", id)
		} else if o.Extensions[accessKey] != least.String() {
			t.Errorf("%s is described as %v, the table says %v", id, o.Extensions[accessKey], least)
		}
	}
	if len(ops) != len(access()) {
		t.Errorf("%d operations, %d lines", len(ops), len(access()))
	}
}

func TestAccessDecidesBeforeTheBackend(t *testing.T) {
	f := &fake{}
	h, _ := NewHandler(f, nil, "0")
	for level, want := range map[Access]int{AsNobody: 401, AsGuest: 403, AsMember: 200, AsOwner: 200, AsLocal: 200} {
		r := httptest.NewRequestWithContext(WithCaller(t.Context(), Caller{Access: level}), http.MethodGet, Prefix+"/volume", nil)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%v: %d %s", level, w.Code, w.Body)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodDelete, Prefix+"/calls/1", nil)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized || len(f.did) > 0 {
		t.Errorf("a request without a caller: %d %v", w.Code, f.did)
	}
}
