package bpf

import "unicode/utf8"

// byteRange is the bytes from low to high, both included.
type byteRange struct{ low, high byte }

// utf8Sequences calls emit with sequences of byte ranges that are together exactly the characters of the range. It is cut
// where the length or a byte before the last ranges changes, as in RE2.
func utf8Sequences(r runeRange, emit func([]byteRange)) {
	const surrogateLow, surrogateHigh = 0xd800, 0xdfff
	if r.low > r.high {
		return
	}
	if r.low <= surrogateHigh && r.high >= surrogateLow {
		utf8Sequences(runeRange{r.low, surrogateLow - 1}, emit)
		utf8Sequences(runeRange{surrogateHigh + 1, r.high}, emit)
		return
	}
	if cut, ok := utf8Cut(r); ok {
		utf8Sequences(runeRange{r.low, cut}, emit)
		utf8Sequences(runeRange{cut + 1, r.high}, emit)
		return
	}
	low, high := utf8.AppendRune(nil, r.low), utf8.AppendRune(nil, r.high)
	sequence := make([]byteRange, len(low))
	for i := range low {
		sequence[i] = byteRange{low[i], high[i]}
	}
	emit(sequence)
}

// utf8Cut gives the last character of the first part, if the range is not yet one sequence.
func utf8Cut(r runeRange) (cut rune, ok bool) {
	for _, longest := range []rune{0x7f, 0x7ff, 0xffff} {
		if r.low <= longest && r.high > longest {
			return longest, true
		}
	}
	if r.high <= 0x7f {
		return 0, false
	}
	for bits := 6; bits <= 18; bits += 6 {
		below := rune(1)<<bits - 1
		if r.low&^below == r.high&^below {
			break
		}
		if r.low&below != 0 {
			return r.low | below, true
		}
		if r.high&below != below {
			return r.high&^below - 1, true
		}
	}
	return 0, false
}
