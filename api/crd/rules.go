package main

import (
	"fmt"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func fieldRules(field protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// knownRules refuses what would be left out.
func knownRules(rules *validate.FieldRules) error {
	if len(rules.GetCel()) > 0 || len(rules.GetCelExpression()) > 0 {
		return fmt.Errorf("write its rule in CEL: it belongs into crossing, in kinds.go, for Kubernetes")
	}
	if r := rules.GetRepeated(); r != nil {
		return knownRules(r.GetItems())
	}
	return nil
}

// messageRules is what a message says of several of its fields.
func messageRules(s *schema, message *protogen.Message) error {
	rules, _ := proto.GetExtension(message.Desc.Options(), validate.E_Message).(*validate.MessageRules)
	if len(rules.GetCel()) > 0 || len(rules.GetCelExpression()) > 0 {
		return fmt.Errorf("write the rule of %s in CEL: it belongs into crossing, in kinds.go, for Kubernetes", message.Desc.Name())
	}
	for _, oneof := range rules.GetOneof() {
		var names []string
		for _, name := range oneof.GetFields() {
			names = append(names, message.Desc.Fields().ByName(protoreflect.Name(name)).JSONName())
		}
		s.Rules = append(s.Rules, oneOf(names, oneof.GetRequired()))
	}
	return nil
}

// hostAndPort is what the schema calls host_and_port, which OpenAPI has no name for.
const hostAndPort = `^(\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]]+):[0-9]{1,5}$`

// valueRules turns the rules of a string or number into keywords of OpenAPI.
func valueRules(s *schema, rules *validate.FieldRules) (err error) {
	message := rules.ProtoReflect()
	if !message.IsValid() {
		return nil
	}
	kind := message.WhichOneof(message.Descriptor().Oneofs().ByName("type"))
	if kind == nil {
		return nil
	}
	message.Get(kind).Message().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		err = valueRule(s, string(field.Name()), value)
		return err == nil
	})
	return err
}

func valueRule(s *schema, name string, value protoreflect.Value) error {
	switch name {
	case "const":
		s.Enum = []any{value.Interface()}
	case "in":
		for i := range value.List().Len() {
			s.Enum = append(s.Enum, value.List().Get(i).Interface())
		}
	case "pattern":
		s.Pattern = value.String()
	case "min_len":
		s.MinLength = new(value.Uint())
	case "max_len", "max_bytes": // a character has one byte or more: the agent is stricter
		s.MaxLength = new(value.Uint())
	case "uri":
		s.Format = "uri"
	case "host_and_port":
		s.Pattern, s.MaxLength = hostAndPort, new(uint64(261))
	case "gt", "gte":
		s.Minimum, s.ExclusiveMinimum = new(number(value)), name == "gt"
	case "lt", "lte":
		s.Maximum, s.ExclusiveMaximum = new(number(value)), name == "lt"
	case "finite": // as all numbers of JSON are
	default:
		return fmt.Errorf("write its rule %q: it has no keyword here", name)
	}
	return nil
}

func number(value protoreflect.Value) float64 {
	switch v := value.Interface().(type) {
	case float64:
		return v
	case int32:
		return float64(v)
	case int64:
		return float64(v)
	case uint32:
		return float64(v)
	case uint64:
		return float64(v)
	}
	return 0
}
