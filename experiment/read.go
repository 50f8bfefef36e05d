package experiment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
)

// maxDocument bounds a document, in bytes.
const maxDocument = 1 << 20

// Problem is one thing that is wrong with a document.
type Problem struct {
	// Line of the document, from 1.
	Line int
	// Field is a path as it was written, such as "spec.faults[0].percent". Empty: the document.
	Field string
	// Text says what is wrong, with the value, and what is allowed.
	Text string
}

// Problems are all that is wrong with a document, by line.
type Problems struct {
	File string
	List []Problem
}

// Error has a line "FILE:LINE: FIELD: what is wrong" for each.
func (p *Problems) Error() string {
	var lines []string
	for _, problem := range p.List {
		text := problem.Text
		if problem.Field != "" {
			text = problem.Field + ": " + text
		}
		lines = append(lines, fmt.Sprintf("%s:%d: %s", p.File, problem.Line, text))
	}
	return strings.Join(lines, "\n")
}

// Read reads a document, strictly, and checks everything that can be known without a node. check says what is wrong with the
// parameters of a fault. What is wrong with the document is told by an error of type *Problems.
func Read(file string, text []byte, check func(*v1.FaultSpec) error) (*Plan, error) {
	d := &document{file: file, text: text, places: map[string]place{}, keys: map[position]string{}, values: map[position]string{}}
	message := d.decode()
	if len(d.problems) == 0 {
		d.checkRules(message)
	}
	var plan *Plan
	if len(d.problems) == 0 {
		plan = d.plan(message, check)
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Problems{file, d.problems}
	}
	return plan, nil
}

// document is one that is being read.
type document struct {
	file string
	text []byte
	// places are where fields are, by their path in a form that does not depend on spelling.
	places map[string]place
	// keys and values are the paths of fields, by where these two of them are.
	keys, values map[position]string
	problems     []Problem
}

type position struct{ line, column int }

type place struct {
	line  int
	field string
	// value is what stands there, if it is one value.
	value string
}

// wrong notes a problem with a field, or with the nearest field around it that was written.
func (d *document) wrong(field, format string, args ...any) {
	at, line := field, 1
	for around := field; around != ""; around = parent(around) {
		if found, ok := d.places[plainPath(around)]; ok {
			line = found.line
			if around == field {
				at = found.field
			}
			break
		}
	}
	d.problems = append(d.problems, Problem{line, at, fmt.Sprintf(format, args...)})
}

// parent is the path of what holds a field.
func parent(field string) string {
	return field[:max(0, strings.LastIndexAny(field, ".["))]
}

// plainPath makes the two spellings of a field one: on_failure and onFailure.
func plainPath(field string) string {
	return strings.ToLower(strings.ReplaceAll(field, "_", ""))
}

// decode reads the YAML into a message.
func (d *document) decode() *v1.Experiment {
	message := &v1.Experiment{}
	if len(d.text) > maxDocument {
		d.wrong("", "the document has %d bytes; it may have %d", len(d.text), maxDocument)
		return message
	}
	decoder := yaml.NewDecoder(bytes.NewReader(d.text))
	var root, second yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		d.wrong("", "the document is empty; it must be an Experiment")
		return message
	} else if err != nil {
		d.notYAML(err)
		return message
	}
	if !errors.Is(decoder.Decode(&second), io.EOF) {
		d.problems = append(d.problems, Problem{max(1, second.Line), "", "a second document begins; a file holds one experiment"})
		return message
	}
	d.index(root.Content[0], "")
	d.translate(protoyaml.UnmarshalOptions{Path: "file"}.Unmarshal(d.text, message))
	return message
}

// atLine is how the YAML library says where something is.
var atLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (d *document) notYAML(err error) {
	line := 1
	if m := atLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		line, _ = strconv.Atoi(m[1])
	}
	d.problems = append(d.problems, Problem{line, "", "this is no YAML: " + atLine.ReplaceAllString(err.Error(), "")})
}

// index remembers where every field is, and refuses what YAML has and a message has not.
func (d *document) index(node *yaml.Node, field string) {
	d.values[position{node.Line, node.Column}] = field
	if _, known := d.places[plainPath(field)]; !known {
		d.places[plainPath(field)] = place{node.Line, field, node.Value}
	}
	switch node.Kind {
	case yaml.AliasNode:
		d.wrong(field, "*%s is an alias; write the value out", node.Value)
	case yaml.SequenceNode:
		for i, item := range node.Content {
			d.index(item, fmt.Sprintf("%s[%d]", field, i))
		}
	case yaml.MappingNode:
		d.indexFields(node, field)
	}
}

func (d *document) indexFields(node *yaml.Node, field string) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		inner := strings.TrimPrefix(field+"."+key.Value, ".")
		if first, twice := d.places[plainPath(inner)]; twice {
			d.problems = append(d.problems, Problem{key.Line, inner, fmt.Sprintf("given twice; it stands in line %d already", first.line)})
			continue
		}
		d.places[plainPath(inner)] = place{key.Line, inner, value.Value}
		d.index(value, inner)
		d.keys[position{key.Line, key.Column}] = inner
	}
}

// located is how protoyaml says where something is: "file:LINE:COLUMN what is wrong", and then the line itself.
var located = regexp.MustCompile(`^file:(\d+):(\d+) ([^\n]*)`)

// translate makes problems of what protoyaml refuses.
func (d *document) translate(err error) {
	if err == nil {
		return
	}
	list := []error{err}
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		list = several.Unwrap()
	}
	for _, one := range list {
		m := located.FindStringSubmatch(one.Error())
		if m == nil {
			d.wrong("", "%v", one)
			continue
		}
		line, _ := strconv.Atoi(m[1])
		column, _ := strconv.Atoi(m[2])
		if strings.HasPrefix(m[3], "unknown field ") {
			field := d.keys[position{line, column}]
			d.wrong(field, "unknown field; %s", allowed(field))
			continue
		}
		field := d.values[position{line, column}]
		d.wrong(field, "%s", plainly(m[3], d.places[plainPath(field)].value))
	}
}

// sayings are protoyaml's words and ours.
var sayings = []struct {
	theirs *regexp.Regexp
	ours   string
}{
	{regexp.MustCompile(`^invalid float: strconv.ParseFloat: parsing (".*"): .*$`), "$1 is no number"},
	{regexp.MustCompile(`^invalid integer: .*$`), "VALUE is no whole number that may stand here"},
	{regexp.MustCompile(`^expected bool, got (.*)$`), "$1 is neither true nor false"},
	{regexp.MustCompile(`^expected fields for \S+, got (\S+)$`), "this must be fields and their values, not a $1"},
	{regexp.MustCompile(`^expected sequence, got (\S+)$`), "this must be a list, not a $1"},
	{regexp.MustCompile(`^expected scalar, got (\S+)$`), "this must be one value, not a $1"},
	{regexp.MustCompile(`^field (\S+) is already set for oneof (\S+)$`), "$1 was given already; there may be one"},
}

// allowed says which fields may stand where one is that is unknown.
func allowed(field string) string {
	message := (&v1.Experiment{}).ProtoReflect().Descriptor()
	for name := range strings.SplitSeq(parent(field), ".") {
		name, _, _ = strings.Cut(name, "[")
		inner := message.Fields().ByJSONName(name)
		if inner == nil {
			inner = message.Fields().ByTextName(name)
		}
		if inner != nil && inner.Message() != nil {
			message = inner.Message()
		}
	}
	var names []string
	for i := range message.Fields().Len() {
		names = append(names, message.Fields().Get(i).JSONName())
	}
	return "here may be " + strings.Join(names, ", ")
}

// plainly says it in our words, with the value that was given.
func plainly(text, value string) string {
	for _, saying := range sayings {
		if saying.theirs.MatchString(text) {
			return strings.Replace(saying.theirs.ReplaceAllString(text, saying.ours), "VALUE", strconv.Quote(value), 1)
		}
	}
	return text
}

// checkRules notes what breaks the rules of the schema.
func (d *document) checkRules(message *v1.Experiment) {
	broken, err := api.BrokenRules(message)
	if err != nil {
		d.wrong("", "%v", err)
	}
	for _, rule := range broken {
		d.wrong(rule.Field, "%s", rule.Problem)
	}
}
