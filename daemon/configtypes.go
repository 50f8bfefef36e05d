package daemon

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// checkShape finds what in a configuration cannot be read into a type, and names its line, its key, the value and what is allowed. The decoder
// names types of Go instead, and reads 1.5 as 1 where a whole number is wanted.
func checkShape(n *yaml.Node, t reflect.Type, field string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.ShortTag() == "!!null":
		return nil // as if it were left out
	case t.Kind() == reflect.Pointer:
		return checkShape(n, t.Elem(), field)
	case t.Kind() == reflect.Struct:
		return checkKeys(n, t, field)
	case t.Kind() == reflect.Slice:
		return checkList(n, t, field)
	case n.Kind != yaml.ScalarNode || !readsAs(n, t):
		return misshapen(n, field, scalarWord(t))
	}
	return nil
}

func checkKeys(n *yaml.Node, t reflect.Type, field string) error {
	if n.Kind != yaml.MappingNode {
		return misshapen(n, field, "keys with values: "+strings.Join(keysOf(t), ", "))
	}
	keys := keysOf(t)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		below := strings.TrimPrefix(field+"."+key.Value, ".")
		at := slices.Index(keys, key.Value)
		if at < 0 {
			return fmt.Errorf("line %d: %s: unknown; it must be one of %s", key.Line, below, strings.Join(keys, ", "))
		}
		if seen[key.Value] {
			return fmt.Errorf("line %d: %s: given twice", key.Line, below)
		}
		seen[key.Value] = true
		if err := checkShape(n.Content[i+1], exported(t)[at].Type, below); err != nil {
			return err
		}
	}
	return nil
}

func checkList(n *yaml.Node, t reflect.Type, field string) error {
	if n.Kind != yaml.SequenceNode {
		return misshapen(n, field, "a list, as [a, b]")
	}
	for i, entry := range n.Content {
		if err := checkShape(entry, t.Elem(), fmt.Sprintf("%s[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

// exported are the fields of a struct that have keys in the file, and keysOf the keys.
func exported(t reflect.Type) (fields []reflect.StructField) {
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			fields = append(fields, f)
		}
	}
	return fields
}

func keysOf(t reflect.Type) (keys []string) {
	for _, f := range exported(t) {
		keys = append(keys, f.Tag.Get("yaml"))
	}
	return keys
}

var durationType = reflect.TypeFor[time.Duration]()

// readsAs says whether a scalar can be read as a type, whole.
func readsAs(n *yaml.Node, t reflect.Type) bool {
	whole := t != durationType && (t.Kind() == reflect.Int || t.Kind() == reflect.Uint32)
	if whole && n.ShortTag() != "!!int" {
		return false
	}
	return n.Decode(reflect.New(t).Interface()) == nil
}

// scalarWord says what can be read as a type.
func scalarWord(t reflect.Type) string {
	if t == durationType {
		return "a duration, such as 30s or 5m"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Uint32:
		return "a whole number in 0..4294967295"
	case reflect.Float64:
		return "a number"
	default:
		return "one text"
	}
}

// misshapen says where something stands that cannot be read, and what must be there.
func misshapen(n *yaml.Node, field, must string) error {
	if field == "" {
		field = "the document"
	}
	return fmt.Errorf("line %d: %s: %s must be %s", n.Line, field, shown(n), must)
}

// shown is a value as it was written, or what kind of thing it is.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		const most = 64
		if len(n.Value) > most {
			return fmt.Sprintf("%q... (%d bytes)", n.Value[:most], len(n.Value))
		}
		return fmt.Sprintf("%q", n.Value)
	}
}
