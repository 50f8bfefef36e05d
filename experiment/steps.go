package experiment

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
)

// steps makes what the node is asked for with each step of parameters.
func (d *document) steps(list []*v1.ParameterSteps, p *Plan, check func(*v1.FaultSpec) error) {
	given := map[string]int{}
	for i, one := range list {
		field := fmt.Sprintf("spec.schedule.steps[%d]", i)
		id := one.GetFault() + " " + one.GetParameter()
		if first, twice := given[id]; twice {
			d.wrong(field+".parameter", "%s of fault %s has the steps of spec.schedule.steps[%d] already", one.GetParameter(), one.GetFault(), first)
			continue
		}
		given[id] = i
		if n := len(list[0].GetValues()); len(one.GetValues()) != n {
			d.wrong(field+".values", "there are %d, and spec.schedule.steps[0] has %d; each step needs a value of each", len(one.GetValues()), n)
			continue
		}
		d.stepsOf(field, one, p, check)
	}
}

func (d *document) stepsOf(field string, one *v1.ParameterSteps, p *Plan, check func(*v1.FaultSpec) error) {
	byName := map[string]*Fault{}
	for i := range p.Faults {
		byName[p.Faults[i].Name] = &p.Faults[i]
	}
	f := byName[one.GetFault()]
	if f == nil {
		d.wrong(field+".fault", "there is no fault %q; there is %s", one.GetFault(), names(byName))
		return
	}
	for i, value := range one.GetValues() {
		if f.Steps == nil || i >= len(f.Steps) {
			f.Steps = append(f.Steps, proto.CloneOf(f.Spec))
		}
		told := one.GetParameter() + " " + value
		if i < len(p.Steps) {
			p.Steps[i] += ", " + told
		} else {
			p.Steps = append(p.Steps, told)
		}
		if err := setParameter(f.Steps[i].ProtoReflect(), one.GetParameter(), value); err != nil {
			d.wrong(field+".parameter", "%v", err)
			return
		}
		d.checkStep(fmt.Sprintf("%s.values[%d]", field, i), f.Steps[i], check)
	}
}

// checkStep checks a fault as it is with a step: by the rules of the schema, and by its own.
func (d *document) checkStep(field string, spec *v1.FaultSpec, check func(*v1.FaultSpec) error) {
	broken, err := api.BrokenRules(spec)
	if err == nil && len(broken) > 0 {
		err = fmt.Errorf("%s: %s", broken[0].Field, broken[0].Problem)
	}
	if err == nil {
		err = check(spec)
	}
	if err != nil {
		d.wrong(field, "%v", err)
	}
}

// setParameter writes a value to where a path such as "packet.delay" leads.
func setParameter(m protoreflect.Message, path, text string) error {
	name, rest, inner := strings.Cut(path, ".")
	field := m.Descriptor().Fields().ByJSONName(name)
	switch {
	case field == nil || name == "target" || name == "duration" || name == "seed":
		return fmt.Errorf("there is no parameter %q that could have steps", name)
	case field.IsList() || field.IsMap() || inner != (field.Message() != nil):
		return fmt.Errorf("%q is not one value", name)
	case inner && !m.Has(field):
		return fmt.Errorf("the fault has no %s", name)
	case inner:
		return setParameter(m.Mutable(field).Message(), rest, text)
	}
	value, err := parameter(field, text)
	if err != nil {
		return fmt.Errorf("%s: %q is no %s", name, text, field.Kind())
	}
	m.Set(field, value)
	return nil
}

func parameter(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), nil
	case protoreflect.DoubleKind:
		number, err := strconv.ParseFloat(text, 64)
		return protoreflect.ValueOfFloat64(number), err
	case protoreflect.Uint64Kind:
		number, err := strconv.ParseUint(text, 10, 64)
		return protoreflect.ValueOfUint64(number), err
	case protoreflect.Uint32Kind:
		number, err := strconv.ParseUint(text, 10, 32)
		return protoreflect.ValueOfUint32(uint32(number)), err
	case protoreflect.Int32Kind:
		number, err := strconv.ParseInt(text, 10, 32)
		return protoreflect.ValueOfInt32(int32(number)), err
	}
	return protoreflect.Value{}, fmt.Errorf("%s has no steps", field.Kind())
}
