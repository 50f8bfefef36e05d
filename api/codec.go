package api

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// StrictCodecs makes a handler refuse JSON requests with fields that the schema does not have; without it
// connect drops them silently. For binary requests ValidateInterceptor does the same.
func StrictCodecs() []connect.HandlerOption {
	// Connect looks a codec up by the content type after "application/", with its charset.
	return []connect.HandlerOption{
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	}
}

// strictJSON implements connect.Codec.
type strictJSON struct{ name string }

// Name implements connect.Codec.
func (c strictJSON) Name() string { return c.name }

// IsBinary tells connect that messages are text, for requests by GET.
func (c strictJSON) IsBinary() bool { return false }

// Marshal implements connect.Codec.
func (c strictJSON) Marshal(value any) ([]byte, error) {
	message, ok := value.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("marshal %T: it is no message", value)
	}
	return protojson.Marshal(message)
}

// Unmarshal implements connect.Codec. Its errors name the path of an unknown field.
func (c strictJSON) Unmarshal(text []byte, value any) error {
	message, ok := value.(proto.Message)
	if !ok {
		return fmt.Errorf("unmarshal %T: it is no message", value)
	}
	if len(text) == 0 {
		return errors.New("an empty text is no JSON object")
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: false}.Unmarshal(text, message)
	if err == nil {
		return nil
	}
	if path := unknownJSONField(text, message.ProtoReflect().Descriptor()); path != "" {
		return fmt.Errorf("%s: unknown field", path)
	}
	return err
}
