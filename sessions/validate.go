package sessions

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Bounds of a message (conventions): what is larger is no call setup but an attack.
const (
	maxBody    = 60 << 10
	maxHeaders = 100
	maxVia     = 20
	maxLine    = 8 << 10
)

// methods this agent knows.
func methods() []string {
	return []string{"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO"}
}

// validate catches what the library's parser lets through although RFC 4475 and RFC
// 3261 section 8.2 say no. It returns nil or a refusal.
func validate(req *sip.Request) error {
	if err := validateSize(req); err != nil {
		return err
	}
	if req.SipVersion != "SIP/2.0" {
		return refusal{505, "Version Not Supported"}
	}
	cseq := req.CSeq()
	if cseq == nil || req.From() == nil || req.To() == nil || req.CallID() == nil || req.Via() == nil {
		return refusal{400, "Missing Header"}
	}
	known := isKnown(req.Method)
	if cseq.MethodName != req.Method {
		if !known {
			return refusal{501, "Not Implemented"}
		}
		return refusal{400, "CSeq Method Mismatch"}
	}
	if s := strings.ToLower(req.Recipient.Scheme); s != "sip" {
		return refusal{416, "Unsupported URI Scheme"}
	}
	if len(req.Recipient.Headers) > 0 {
		return refusal{400, "Headers In Request-URI"}
	}
	if err := validateContact(req); err != nil {
		return err
	}
	if m := req.MaxForwards(); m != nil && m.Val() == 0 {
		return refusal{483, "Too Many Hops"}
	}
	if unsupported(req) != "" && req.Method != sip.CANCEL && req.Method != sip.ACK {
		return refusal{420, "Bad Extension"}
	}
	if !known {
		return refusal{405, "Method Not Allowed"}
	}
	return validateBody(req)
}

// unsupported lists what a request requires and this agent has not (RFC 3261 section 20.32).
func unsupported(req *sip.Request) string {
	var out []string
	for _, h := range req.GetHeaders("Require") {
		for tag := range strings.SplitSeq(h.Value(), ",") {
			if tag = strings.TrimSpace(tag); !strings.EqualFold(tag, "timer") {
				out = append(out, tag)
			}
		}
	}
	return strings.Join(out, ", ")
}

// isKnown includes what phones send to their edge.
func isKnown(m sip.RequestMethod) bool {
	return slices.Contains(methods(), string(m)) || m == sip.REGISTER
}

func validateSize(req *sip.Request) error {
	headers := req.Headers()
	if len(req.Body()) > maxBody || len(headers) > maxHeaders || len(req.GetHeaders("Via")) > maxVia {
		return refusal{513, "Message Too Large"}
	}
	for _, h := range headers {
		if len(h.Name())+len(h.Value()) > maxLine {
			return refusal{513, "Message Too Large"}
		}
	}
	return nil
}

// validateContact refuses a Contact whose "?" or "," stands outside angle brackets (RFC
// 3261 section 20.10).
func validateContact(req *sip.Request) error {
	for _, h := range req.GetHeaders("Contact") {
		v := h.Value()
		if !strings.Contains(v, "<") && strings.ContainsAny(v, "?,") {
			return refusal{400, "Contact Needs Angle Brackets"}
		}
	}
	return nil
}

func validateBody(req *sip.Request) error {
	if len(req.Body()) == 0 {
		return nil
	}
	offers := req.Method == sip.INVITE || req.Method == sip.UPDATE
	if offers && bodyType(req) != "application/sdp" {
		return refusal{415, "Unsupported Media Type"}
	}
	if a := req.GetHeader("Accept"); offers && a != nil &&
		!strings.Contains(a.Value(), "application/sdp") && !strings.Contains(a.Value(), "*/*") {
		return refusal{406, "Not Acceptable"}
	}
	return nil
}

// decorate adds the headers that some refusals must carry.
func decorate(res *sip.Response, req *sip.Request) {
	switch res.StatusCode {
	case 420:
		res.AppendHeader(sip.NewHeader("Unsupported", unsupported(req)))
	case 415, 406:
		accept := "application/sdp"
		if req.Method == sip.INFO {
			accept = dtmfRelay + ", " + dtmf
		}
		res.AppendHeader(sip.NewHeader("Accept", accept))
	case 405:
		res.AppendHeader(sip.NewHeader("Allow", strings.Join(methods(), ", ")))
	}
}
