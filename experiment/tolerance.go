package experiment

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Tolerance says which value of a try is good, and how many tries may fail.
type Tolerance struct {
	// Value, Min, Max and Regex are asked of every value; nil: anything is good.
	Value    *string
	Min, Max *float64
	Regex    *regexp.Regexp
	// Compare and To are a comparison of numbers; an empty Compare is none.
	Compare string
	To      float64
	// Failures is the percentage of tries that may fail, of those of the last Window, or of a whole phase if that is 0.
	Failures float64
	Window   time.Duration
	// Percentile of the latencies may be at most Times as long as before; 0: whatever it is.
	Percentile, Times float64
}

func (d *document) tolerance(field string, m *v1.Tolerance) Tolerance {
	if m == nil {
		return Tolerance{}
	}
	t := Tolerance{Value: m.Value}
	if m.GetRange() != nil {
		t.Min, t.Max = m.GetRange().Min, m.GetRange().Max
		switch {
		case t.Min == nil && t.Max == nil:
			d.wrong(field+".range", "give min, max or both")
		case t.Min != nil && t.Max != nil && *t.Min > *t.Max:
			d.wrong(field+".range", "min %v is above max %v", *t.Min, *t.Max)
		}
	}
	if m.GetRegex() != "" {
		var err error
		if t.Regex, err = regexp.Compile(m.GetRegex()); err != nil {
			d.wrong(field+".regex", "%q is no regular expression: %v", m.GetRegex(), err)
		}
	}
	t.Compare, t.To = d.comparison(field+".compare", m.GetCompare())
	t.Failures = m.GetFailures().GetPercent()
	t.Window = d.duration(field+".failures.window", m.GetFailures().GetWindow(), leastDuration, 0)
	t.Percentile, t.Times = m.GetBaseline().GetPercentile(), m.GetBaseline().GetTimes()
	return t
}

// judge says what is wrong with a value, or nil.
func (t Tolerance) judge(value string) error {
	if t.Value != nil && !sameValue(value, *t.Value) {
		return fmt.Errorf("the value is %s, not %s", brief(value), brief(*t.Value))
	}
	if t.Regex != nil && !t.Regex.MatchString(value) {
		return fmt.Errorf("the value %s does not match %s", brief(value), t.Regex)
	}
	if t.Min == nil && t.Max == nil && t.Compare == "" {
		return nil
	}
	number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	switch {
	case err != nil || math.IsNaN(number):
		return fmt.Errorf("the value %s is no number", brief(value))
	case t.Min != nil && number < *t.Min:
		return fmt.Errorf("the value %v is below %v", number, *t.Min)
	case t.Max != nil && number > *t.Max:
		return fmt.Errorf("the value %v is above %v", number, *t.Max)
	case t.Compare != "" && !compares(number, t.Compare, t.To):
		return fmt.Errorf("the value %v is not %s %v", number, t.Compare, t.To)
	}
	return nil
}

// ofValue says whether anything is asked of the value.
func (t Tolerance) ofValue() bool {
	return t.Value != nil || t.Min != nil || t.Max != nil || t.Regex != nil || t.Compare != ""
}

// comparator is an operator and a number.
var comparator = regexp.MustCompile(`^(<=|>=|==|!=|<|>)\s*(\S+)$`)

// comparison reads one, such as "<= 0.01".
func (d *document) comparison(field, text string) (operator string, to float64) {
	if text == "" {
		return "", 0
	}
	if m := comparator.FindStringSubmatch(text); m != nil {
		if to, err := strconv.ParseFloat(m[2], 64); err == nil && !math.IsNaN(to) {
			return m[1], to
		}
	}
	d.wrong(field, "%q is no comparison; write <, <=, >, >=, == or != and a number, as <= 0.01", text)
	return "", 0
}

func compares(number float64, operator string, to float64) bool {
	switch operator {
	case "<":
		return number < to
	case "<=":
		return number <= to
	case ">":
		return number > to
	case ">=":
		return number >= to
	case "==":
		return number == to
	default:
		return number != to
	}
}

// sameValue compares numbers as numbers: 1.0 is 1.
func sameValue(a, b string) bool {
	x, errX := strconv.ParseFloat(strings.TrimSpace(a), 64)
	y, errY := strconv.ParseFloat(strings.TrimSpace(b), 64)
	return a == b || errX == nil && errY == nil && x == y
}

// brief quotes a value for people.
func brief(value string) string {
	const most = 60
	if len(value) > most {
		return strconv.Quote(value[:most]) + "..."
	}
	return strconv.Quote(value)
}

// percentile gives the nearest-rank percentile of durations; 0 if there are none.
func percentile(durations []time.Duration, percent float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// String tells the tolerance to people.
func (t Tolerance) String() string {
	var parts []string
	if t.Value != nil {
		parts = append(parts, "is "+brief(*t.Value))
	}
	if t.Min != nil {
		parts = append(parts, fmt.Sprintf("at least %v", *t.Min))
	}
	if t.Max != nil {
		parts = append(parts, fmt.Sprintf("at most %v", *t.Max))
	}
	if t.Compare != "" {
		parts = append(parts, fmt.Sprintf("is %s %v", t.Compare, t.To))
	}
	if t.Regex != nil {
		parts = append(parts, "matches "+t.Regex.String())
	}
	failures := fmt.Sprintf("at most %v %% of tries fail", t.Failures)
	if t.Failures == 0 {
		failures = "no try fails"
	}
	if t.Window > 0 {
		failures += fmt.Sprintf(" in %s", t.Window)
	}
	parts = append(parts, failures)
	if t.Percentile > 0 {
		parts = append(parts, fmt.Sprintf("p%v at most %v x before", t.Percentile, t.Times))
	}
	return strings.Join(parts, ", ")
}
