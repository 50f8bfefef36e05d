// Crd is a plugin of buf that makes the custom resource definitions of faultd's kinds of the schema: a structural OpenAPI schema with the
// same comments, names and rules. What the schema cannot say of itself stands in kinds.go.
package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		messages := make(map[string]*protogen.Message)
		for _, file := range plugin.Files {
			for _, message := range file.Messages {
				messages[string(message.Desc.Name())] = message
			}
		}
		for _, kind := range kinds {
			if err := write(plugin, kind, messages); err != nil {
				return err
			}
		}
		return nil
	})
}
