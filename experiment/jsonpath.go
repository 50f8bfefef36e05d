package experiment

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// jsonPath is where something stands in JSON: names and numbers of items, from the outside.
type jsonPath []any

// jsonStep is one step of a path: ".name", "[0]", or "['any name']" with either quote.
var jsonStep = regexp.MustCompile(`^(?:\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\])`)

// jsonPath reads a path such as "$.items[0].state".
func (d *document) jsonPath(field, text string) jsonPath {
	if text == "" {
		return nil
	}
	path := jsonPath{}
	rest, found := strings.CutPrefix(text, "$")
	for found && rest != "" {
		var step []string
		if step = jsonStep.FindStringSubmatch(rest); step == nil {
			break
		}
		rest = rest[len(step[0]):]
		if n, err := strconv.Atoi(step[2]); err == nil {
			path = append(path, n)
		} else {
			path = append(path, step[1]+step[3]+step[4])
		}
	}
	if !found || rest != "" {
		d.wrong(field, `%q is no path; write it as $.items[0].state or $["a name"]`, text)
	}
	return path
}

// String writes the path.
func (p jsonPath) String() string {
	text := "$"
	for _, step := range p {
		text += fmt.Sprintf("[%#v]", step)
	}
	return text
}

// of gives what stands there: text as it is, everything else as JSON.
func (p jsonPath) of(text string) (string, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return text, fmt.Errorf("the answer is no JSON: %w", err)
	}
	for i, step := range p {
		inner, found := into(value, step)
		if !found {
			return "", fmt.Errorf("the answer has no %s", p[:i+1])
		}
		value = inner
	}
	if s, ok := value.(string); ok {
		return s, nil
	}
	out, err := json.Marshal(value)
	return string(out), err
}

func into(value, step any) (inner any, found bool) {
	switch step := step.(type) {
	case int:
		list, _ := value.([]any)
		if step < len(list) {
			return list[step], true
		}
	case string:
		fields, _ := value.(map[string]any)
		inner, found = fields[step]
	}
	return inner, found
}
