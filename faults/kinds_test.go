package faults

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/vm/guest"
)

// kindFields gives the message of each kind in the schema, by the kind's name.
func kindFields() map[string]protoreflect.FieldDescriptor {
	fields := map[string]protoreflect.FieldDescriptor{}
	oneof := (&v1.FaultSpec{}).ProtoReflect().Descriptor().Oneofs().ByName("kind")
	for i := range oneof.Fields().Len() {
		fields[string(oneof.Fields().Get(i).Name())] = oneof.Fields().Get(i)
	}
	return fields
}

// empty is a spec of a kind without any parameter.
func empty(field protoreflect.FieldDescriptor) *v1.FaultSpec {
	spec := &v1.FaultSpec{}
	spec.ProtoReflect().Set(field, spec.ProtoReflect().NewField(field))
	return spec
}

// TestKindsAgreeWithTheSchema: what the table tells people is what the schema takes.
func TestKindsAgreeWithTheSchema(t *testing.T) {
	fields := kindFields()
	for _, kind := range Kinds() {
		field := fields[kind.Name]
		if field == nil {
			t.Errorf("%s is not in the schema", kind.Name)
			continue
		}
		delete(fields, kind.Name)
		var told, taken []string
		for _, p := range kind.Parameters {
			if p.Type == "" || p.Help == "" {
				t.Errorf("%s.%s says nothing", kind.Name, p.Name)
			}
			told = append(told, p.Name)
		}
		for i := range field.Message().Fields().Len() {
			taken = append(taken, leaves(field.Message().Fields().Get(i))...)
		}
		slices.Sort(told)
		slices.Sort(taken)
		if !slices.Equal(told, taken) {
			t.Errorf("%s tells of %v, and takes %v", kind.Name, told, taken)
		}
	}
	for name := range fields {
		t.Errorf("%s is in the schema and not in the table", name)
	}
}

// leaves are the names of a field, or of what is in it.
func leaves(field protoreflect.FieldDescriptor) (names []string) {
	if field.Message() == nil {
		return []string{field.JSONName()}
	}
	for i := range field.Message().Fields().Len() {
		names = append(names, field.JSONName()+"."+field.Message().Fields().Get(i).JSONName())
	}
	return names
}

// TestKindsRefuseNothing: a kind without its parameters is refused, and the error begins with the path of a field.
func TestKindsRefuseNothing(t *testing.T) {
	for _, kind := range Kinds() {
		_, fault, err := New(empty(kindFields()[kind.Name]))
		if err == nil || fault != nil || !strings.HasPrefix(err.Error(), kind.Name+".") {
			t.Errorf("%s without parameters: %v, %v", kind.Name, fault, err)
		}
	}
	if _, _, err := New(&v1.FaultSpec{}); err == nil || !strings.Contains(err.Error(), "kind: none given") {
		t.Errorf("no kind: %v", err)
	}
}

// TestKindsAreDocumented: docs/faults.md has a section for each kind.
func TestKindsAreDocumented(t *testing.T) {
	if os.Getenv(guest.KernelVar) != "" {
		t.Skip("the documents are not in a virtual machine: runs on the host")
	}
	text, err := os.ReadFile("../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Kinds() {
		if !strings.Contains(string(text), "\n## "+kind.Name+"\n") {
			t.Errorf("docs/faults.md has no section %q", kind.Name)
		}
	}
}
