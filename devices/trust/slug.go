package trust

import (
	"strconv"
	"strings"
	"unicode"
)

// maxSlug bounds a slug before its number: it is part of every SIP message.
const maxSlug = 40

// newSlug takes a free slug in the one name space of the home: taken names get "-2".
// Slugs are never given anew, so that an old URI cannot come to mean something else.
func (f *folder) newSlug(name, kind string) string {
	base := Slugify(name)
	if base == "" {
		base = kind
	}
	slug := base
	for i := 2; f.slugs[slug] || reserved(slug); i++ {
		slug = base + "-" + strconv.Itoa(i)
	}
	f.slugs[slug] = true
	return slug
}

// reserved slugs mean something in every home.
func reserved(slug string) bool {
	return slug == "all" || slug == "door" || slug == "hallway" || slug == "localhost"
}

// Slugify makes the name part of a SIP URI from a display name: lower-case letters,
// digits and hyphens. It is empty when the name has no letter or digit that it knows.
func Slugify(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		last := byte('-')
		if b.Len() > 0 {
			last = b.String()[b.Len()-1]
		}
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == 0x308 && strings.IndexByte("aou", last) >= 0: // an umlaut in two parts, as macOS writes it
			b.WriteByte('e')
		case unicode.Is(unicode.Mn, r), strings.ContainsRune("'’ьъ", r): // other accents; "Maria's" reads "marias"
		case spelling(r) != "":
			b.WriteString(spelling(r))
		case last != '-':
			b.WriteByte('-')
		}
		if b.Len() >= maxSlug {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

// spelling writes the letters that European names bring with those of ASCII.
func spelling(r rune) string {
	for _, row := range [...]struct{ letters, ascii string }{
		{"ä", "ae"}, {"ö", "oe"}, {"ü", "ue"}, {"ß", "ss"}, {"æ", "ae"}, {"œ", "oe"}, {"þ", "th"},
		{"áàâåãāăą", "a"}, {"çćčċ", "c"}, {"ďđð", "d"}, {"éèêëēėęě", "e"}, {"ğģ", "g"}, {"íìîïīįı", "i"}, {"ķ", "k"},
		{"łľĺļ", "l"}, {"ñńňņ", "n"}, {"óòôõøōő", "o"}, {"řŕ", "r"}, {"śšşș", "s"}, {"ťţț", "t"}, {"úùûūůűų", "u"},
		{"ýÿ", "y"}, {"źžż", "z"},
		{"а", "a"}, {"б", "b"}, {"в", "v"}, {"г", "g"}, {"д", "d"}, {"еёэє", "e"}, {"ж", "zh"}, {"з", "z"}, {"ий", "i"}, {"іїы", "i"},
		{"к", "k"}, {"л", "l"}, {"м", "m"}, {"н", "n"}, {"о", "o"}, {"п", "p"}, {"р", "r"}, {"с", "s"}, {"т", "t"}, {"у", "u"}, {"ф", "f"},
		{"х", "kh"}, {"ц", "ts"}, {"ч", "ch"}, {"ш", "sh"}, {"щ", "shch"}, {"ю", "yu"}, {"я", "ya"},
		{"αά", "a"}, {"β", "v"}, {"γ", "g"}, {"δ", "d"}, {"εέ", "e"}, {"ζ", "z"}, {"ηήιί", "i"}, {"θ", "th"}, {"κ", "k"}, {"λ", "l"},
		{"μ", "m"}, {"ν", "n"}, {"ξ", "x"}, {"οόωώ", "o"}, {"π", "p"}, {"ρ", "r"}, {"σς", "s"}, {"τ", "t"}, {"υύ", "y"}, {"φ", "f"},
		{"χ", "ch"}, {"ψ", "ps"},
	} {
		if strings.ContainsRune(row.letters, r) {
			return row.ascii
		}
	}
	return ""
}
