package trust

// bits is a set of small numbers; with and union leave their operands as they are.
type bits []uint64

func (b bits) has(i int) bool { return i/64 < len(b) && b[i/64]&(1<<(i%64)) != 0 }

func (b bits) with(i int) bits {
	if b.has(i) {
		return b
	}
	out := make(bits, max(len(b), i/64+1))
	copy(out, b)
	out[i/64] |= 1 << (i % 64)
	return out
}

func (b bits) union(other bits) bits {
	if b.covers(other) {
		return b
	}
	if other.covers(b) {
		return other
	}
	out := make(bits, max(len(b), len(other)))
	copy(out, b)
	for w, word := range other {
		out[w] |= word
	}
	return out
}

func (b bits) covers(other bits) bool {
	for w, word := range other {
		if word != 0 && (w >= len(b) || b[w]&word != word) {
			return false
		}
	}
	return true
}
