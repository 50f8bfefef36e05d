package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "faultd/api/faultd/v1alpha1"
)

// maxShownValue bounds how much of a refused value an error repeats, in bytes.
const maxShownValue = 64

// ValidateInterceptor refuses requests that break the rules of the schema, or that carry fields the schema
// does not have, with connect.CodeInvalidArgument. The message is "path.of.field: what is wrong, got VALUE",
// and for broken rules the error has the violations as a detail.
func ValidateInterceptor() (connect.Interceptor, error) {
	validator, err := protovalidate.New(protovalidate.WithMessageDescriptors(requestTypes()...))
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the schema: %w", err)
	}
	return &validateInterceptor{validator}, nil
}

// requestTypes lists the requests of all methods.
func requestTypes() []protoreflect.MessageDescriptor {
	var types []protoreflect.MessageDescriptor
	services := v1.File_faultd_v1alpha1_faultd_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			types = append(types, methods.Get(j).Input())
		}
	}
	return types
}

type validateInterceptor struct{ validator protovalidate.Validator }

// WrapUnary implements connect.Interceptor.
func (v *validateInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if err := v.check(request.Any()); err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// WrapStreamingClient implements connect.Interceptor. The server checks.
func (v *validateInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (v *validateInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &checkedConn{conn, v})
	}
}

// checkedConn checks every message it receives.
type checkedConn struct {
	connect.StreamingHandlerConn
	interceptor *validateInterceptor
}

// Receive implements connect.StreamingHandlerConn.
func (c *checkedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	return c.interceptor.check(message)
}

func (v *validateInterceptor) check(request any) error {
	message, ok := request.(proto.Message)
	if !ok {
		return connect.NewError(connect.CodeInternal, fmt.Errorf("check the request: %T is no message", request))
	}
	if path := unknownField(message.ProtoReflect(), ""); path != "" {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s: unknown field", path))
	}
	err := v.validator.Validate(message)
	var broken *protovalidate.ValidationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return violationError(broken)
	default:
		return connect.NewError(connect.CodeInternal, fmt.Errorf("check the request: %w", err))
	}
}

// violationError says on one line what is wrong with which fields.
func violationError(broken *protovalidate.ValidationError) *connect.Error {
	var lines []string
	for _, violation := range broken.Violations {
		lines = append(lines, describe(violation))
	}
	err := connect.NewError(connect.CodeInvalidArgument, errors.New(strings.Join(lines, "; ")))
	if detail, detailErr := connect.NewErrorDetail(broken.ToProto()); detailErr == nil {
		err.AddDetail(detail)
	}
	return err
}

// BrokenRule is a rule of the schema that a message breaks.
type BrokenRule struct {
	// Field is its path, such as "spec.faults[0].percent".
	Field string
	// Problem says what is allowed, and what was given.
	Problem string
}

// BrokenRules lists what a message breaks; nil when it is good.
func BrokenRules(message proto.Message) ([]BrokenRule, error) {
	err := protovalidate.Validate(message)
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return nil, err
	}
	var rules []BrokenRule
	for _, violation := range broken.Violations {
		field := protovalidate.FieldPathString(violation.Proto.GetField())
		rules = append(rules, BrokenRule{field, strings.TrimPrefix(describe(violation), field+": ")})
	}
	return rules, nil
}

func describe(v *protovalidate.Violation) string {
	// In a list of words "" is the one that is not written.
	text := strings.Replace(v.String(), "must be in list [, ", "must be in list [", 1)
	// Rules that carry no value, as "required", are about an absence: there is no value to show.
	if !v.FieldValue.IsValid() || v.Proto.GetRuleId() == "required" {
		return text
	}
	if shown := showValue(v.FieldValue.Interface()); shown != "" {
		text += ", got " + shown
	}
	return text
}

// showValue gives a short form of a field's value, or "" for those that have none.
func showValue(value any) string {
	switch value := value.(type) {
	case string:
		if len(value) > maxShownValue {
			return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(value[:maxShownValue]), len(value))
		}
		return strconv.Quote(value)
	case protoreflect.List:
		return fmt.Sprintf("%d", value.Len())
	case protoreflect.Message, protoreflect.Map, []byte:
		return ""
	default:
		return fmt.Sprint(value)
	}
}
