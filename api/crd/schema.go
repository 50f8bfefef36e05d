package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schema is the part of a structural OpenAPI v3 schema that is needed here.
type schema struct {
	Description      string             `yaml:"description,omitempty"`
	Type             string             `yaml:"type"`
	Format           string             `yaml:"format,omitempty"`
	Enum             []any              `yaml:"enum,omitempty"`
	Pattern          string             `yaml:"pattern,omitempty"`
	MinLength        *uint64            `yaml:"minLength,omitempty"`
	MaxLength        *uint64            `yaml:"maxLength,omitempty"`
	Minimum          *float64           `yaml:"minimum,omitempty"`
	ExclusiveMinimum bool               `yaml:"exclusiveMinimum,omitempty"`
	Maximum          *float64           `yaml:"maximum,omitempty"`
	ExclusiveMaximum bool               `yaml:"exclusiveMaximum,omitempty"`
	MinItems         *uint64            `yaml:"minItems,omitempty"`
	MaxItems         *uint64            `yaml:"maxItems,omitempty"`
	MaxProperties    *uint64            `yaml:"maxProperties,omitempty"`
	Required         []string           `yaml:"required,omitempty,flow"`
	Properties       map[string]*schema `yaml:"properties,omitempty"`
	Items            *schema            `yaml:"items,omitempty"`
	Additional       *schema            `yaml:"additionalProperties,omitempty"`
	ListType         string             `yaml:"x-kubernetes-list-type,omitempty"`
	ListKeys         []string           `yaml:"x-kubernetes-list-map-keys,omitempty,flow"`
	Rules            []rule             `yaml:"x-kubernetes-validations,omitempty"`
}

// rule is an expression in CEL that must hold.
type rule struct {
	Rule      string `yaml:"rule"`
	Message   string `yaml:"message"`
	FieldPath string `yaml:"fieldPath,omitempty"`
}

// ofMessage is the schema of a message. A structural schema has no references, so within is what a message may not contain again.
func ofMessage(message *protogen.Message, within []protoreflect.FullName) (*schema, error) {
	name := message.Desc.FullName()
	if slices.Contains(within, name) {
		return nil, fmt.Errorf("write %s: it contains itself", name)
	}
	within = append(slices.Clone(within), name)
	s := &schema{Type: "object", Description: description(message.Comments.Leading), Properties: make(map[string]*schema)}
	for _, field := range message.Fields {
		property, err := ofField(field, within)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.Desc.FullName(), err)
		}
		s.Properties[field.Desc.JSONName()] = property
		if needed(field, property) {
			s.Required = append(s.Required, field.Desc.JSONName())
		}
	}
	for _, oneof := range message.Oneofs {
		if !oneof.Desc.IsSynthetic() {
			s.Rules = append(s.Rules, ofOneof(oneof))
		}
	}
	if err := messageRules(s, message); err != nil {
		return nil, err
	}
	s.Rules = append(s.Rules, crossing[name.Name()]...)
	return s, nil
}

func ofField(field *protogen.Field, within []protoreflect.FullName) (*schema, error) {
	rules := fieldRules(field.Desc)
	if err := knownRules(rules); err != nil {
		return nil, err
	}
	switch {
	case field.Desc.IsMap():
		return ofMap(field, rules, within)
	case field.Desc.IsList():
		return ofList(field, rules, within)
	}
	s, err := ofValue(field, rules, within)
	if err != nil {
		return nil, err
	}
	if text := description(field.Comments.Leading); text != "" {
		s.Description = text
	}
	return s, nil
}

func ofList(field *protogen.Field, rules *validate.FieldRules, within []protoreflect.FullName) (*schema, error) {
	list := rules.GetRepeated()
	items, err := ofValue(field, list.GetItems(), within)
	if err != nil {
		return nil, err
	}
	s := &schema{Type: "array", Description: description(field.Comments.Leading), Items: items, ListType: "atomic"}
	if list != nil {
		s.MinItems, s.MaxItems = list.MinItems, list.MaxItems
	}
	switch key := listKeys[field.Desc.FullName().Parent().Name()+"."+field.Desc.Name()]; {
	case key != "":
		s.ListType, s.ListKeys = "map", []string{key}
	case list.GetUnique():
		s.ListType = "set"
	}
	return s, nil
}

// ofMap is the schema of a map from strings. Nothing can be said of its keys.
func ofMap(field *protogen.Field, rules *validate.FieldRules, within []protoreflect.FullName) (*schema, error) {
	values, err := ofValue(field.Message.Fields[1], rules.GetMap().GetValues(), within)
	if err != nil {
		return nil, err
	}
	s := &schema{Type: "object", Description: description(field.Comments.Leading), Additional: values}
	if rules.GetMap() != nil {
		s.MaxProperties = rules.GetMap().MaxPairs
	}
	return s, nil
}

func ofValue(field *protogen.Field, rules *validate.FieldRules, within []protoreflect.FullName) (*schema, error) {
	var s *schema
	switch kind := field.Desc.Kind(); kind {
	case protoreflect.MessageKind:
		return ofMessage(field.Message, within)
	case protoreflect.StringKind:
		s = &schema{Type: "string"}
	case protoreflect.BoolKind:
		s = &schema{Type: "boolean"}
	case protoreflect.DoubleKind:
		s = &schema{Type: "number", Format: "double"}
	case protoreflect.Int32Kind:
		s = &schema{Type: "integer", Format: "int32"}
	case protoreflect.Int64Kind:
		s = &schema{Type: "integer", Format: "int64"}
	case protoreflect.Uint32Kind:
		s = &schema{Type: "integer", Format: "int64", Minimum: new(0.0), Maximum: new(float64(1<<32 - 1))}
	case protoreflect.Uint64Kind: // above 2^63 there are none in Kubernetes
		s = &schema{Type: "integer", Format: "int64", Minimum: new(0.0)}
	default:
		return nil, fmt.Errorf("write a field of kind %s: only messages, strings, bools, doubles and integers have a place here", kind)
	}
	return s, valueRules(s, rules)
}

// needed says whether a field must be given: where none has no meaning of its own, an absent one has the zero value, which the rules may
// not allow.
func needed(field *protogen.Field, s *schema) bool {
	rules := fieldRules(field.Desc)
	if rules.GetRequired() {
		return true
	}
	if field.Desc.HasPresence() || rules.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE {
		return false
	}
	switch s.Type {
	case "array":
		return s.MinItems != nil && *s.MinItems > 0
	case "string":
		return s.Format != "" || s.MinLength != nil && *s.MinLength > 0 || len(s.Enum) > 0 && !slices.Contains(s.Enum, any("")) ||
			s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString("")
	case "number", "integer":
		return s.Minimum != nil && (*s.Minimum > 0 || s.ExclusiveMinimum && *s.Minimum == 0)
	}
	return false
}

// ofOneof lets one field be given at most, or exactly one.
func ofOneof(oneof *protogen.Oneof) rule {
	names := alternatives(oneof)
	rules, _ := proto.GetExtension(oneof.Desc.Options(), validate.E_Oneof).(*validate.OneofRules)
	return oneOf(names, rules.GetRequired())
}

func alternatives(oneof *protogen.Oneof) (names []string) {
	for _, field := range oneof.Fields {
		names = append(names, field.Desc.JSONName())
	}
	return names
}

func oneOf(names []string, exactly bool) rule {
	given := make([]string, len(names))
	for i, name := range names {
		given[i] = "has(self." + celName(name) + ")"
	}
	how, compare := "at most one of ", "<= 1"
	if exactly {
		how, compare = "exactly one of ", "== 1"
	}
	return rule{Rule: "[" + strings.Join(given, ", ") + "].filter(given, given).size() " + compare, Message: how + list(names) + " is allowed"}
}

func list(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// celName escapes what CEL keeps for itself, as Kubernetes wants it.
func celName(name string) string {
	if slices.Contains([]string{"namespace", "in", "if", "for", "package", "import", "return", "var", "void", "while", "loop", "let", "function", "as", "break", "const", "continue", "else"}, name) {
		return "__" + name + "__"
	}
	return name
}

// description makes one line of a comment.
func description(comment protogen.Comments) string {
	return strings.Join(strings.Fields(string(comment)), " ")
}
