package kube

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
)

// toObject gives a message as Kubernetes' objects have it: as JSON, but 64-bit numbers are numbers, and what is 0 or empty is left out.
func toObject(m protoreflect.Message) map[string]any {
	object := map[string]any{}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if !field.IsList() {
			object[field.JSONName()] = toValue(field, value)
			return true
		}
		list := make([]any, value.List().Len())
		for i := range list {
			list[i] = toValue(field, value.List().Get(i))
		}
		object[field.JSONName()] = list
		return true
	})
	return object
}

func toValue(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return toObject(value.Message())
	case protoreflect.Uint64Kind, protoreflect.Uint32Kind:
		return int64(value.Uint())
	case protoreflect.Int64Kind, protoreflect.Int32Kind:
		return value.Int()
	}
	return value.Interface()
}

// fromObject reads a part of an object into a message. Fields of a newer version are passed over if newer says so.
func fromObject(part map[string]any, m proto.Message, newer bool) error {
	text, err := json.Marshal(part)
	if err != nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: newer}.Unmarshal(text, m)
}

// statusOf reads the status of an Experiment object. One that makes no sense is none.
func statusOf(object *unstructured.Unstructured) *v1.ExperimentStatus {
	status := &v1.ExperimentStatus{}
	part, _, _ := unstructured.NestedMap(object.Object, "status")
	if fromObject(part, status, true) != nil {
		return &v1.ExperimentStatus{}
	}
	return status
}

// policyOf reads a ChaosPolicy object. A field that is not known could be what forbids something, so it is an error.
func policyOf(object *unstructured.Unstructured) (policy, error) {
	spec := &v1.ChaosPolicySpec{}
	part, _, err := unstructured.NestedMap(object.Object, "spec")
	if err == nil {
		err = fromObject(part, spec, false)
	}
	if err != nil {
		return policy{name: object.GetName(), spec: spec}, fmt.Errorf("ChaosPolicy %s: spec: %w; nothing starts until it is corrected", object.GetName(), err)
	}
	broken, err := api.BrokenRules(spec)
	if err == nil && len(broken) > 0 {
		err = fmt.Errorf("%s: %s", broken[0].Field, broken[0].Problem)
	}
	if err != nil {
		return policy{name: object.GetName(), spec: spec}, fmt.Errorf("ChaosPolicy %s: spec.%w; nothing starts until it is corrected", object.GetName(), err)
	}
	return newPolicy(object.GetName(), spec)
}

// clock writes a time as objects have it.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// readClock reads a time; one that cannot be read is long ago.
func readClock(text string) time.Time {
	t, _ := time.Parse(time.RFC3339, text)
	return t
}

// cut makes a text no longer than a field may be.
func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return text
}

// several tells a number of things.
func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
