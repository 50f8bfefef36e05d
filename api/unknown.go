package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unknownField gives the path of the first field that came over the wire and is not in the schema, such as
// "spec.connect.99"; "" if there is none.
func unknownField(message protoreflect.Message, path string) string {
	if raw := message.GetUnknown(); len(raw) > 0 {
		number, _, _ := protowire.ConsumeTag(raw)
		return join(path, fmt.Sprint(int32(number)))
	}
	found := ""
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() != nil && !field.IsMap() {
			found = unknownInField(field, value, join(path, string(field.Name())))
		}
		return found == ""
	})
	return found
}

func unknownInField(field protoreflect.FieldDescriptor, value protoreflect.Value, path string) string {
	if !field.IsList() {
		return unknownField(value.Message(), path)
	}
	for i := range value.List().Len() {
		if found := unknownField(value.List().Get(i).Message(), fmt.Sprintf("%s[%d]", path, i)); found != "" {
			return found
		}
	}
	return ""
}

// unknownJSONField is unknownField for a JSON text. Texts that are no JSON have none.
func unknownJSONField(text []byte, message protoreflect.MessageDescriptor) string {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return ""
	}
	return unknownInJSON(value, message, "")
}

func unknownInJSON(value any, message protoreflect.MessageDescriptor, path string) string {
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			if found := unknownInJSON(item, message, fmt.Sprintf("%s[%d]", path, i)); found != "" {
				return found
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			field := jsonField(message, name)
			if field == nil {
				return join(path, name)
			}
			if field.Message() == nil || field.IsMap() {
				continue
			}
			if found := unknownInJSON(value[name], field.Message(), join(path, string(field.Name()))); found != "" {
				return found
			}
		}
	}
	return ""
}

// jsonField finds a field by either of its two names, as protojson does.
func jsonField(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if field := message.Fields().ByJSONName(name); field != nil {
		return field
	}
	return message.Fields().ByTextName(name)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
