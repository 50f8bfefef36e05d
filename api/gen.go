package api

// The generated code is committed. To generate it again, install the tools with
//
//	go install github.com/bufbuild/buf/cmd/buf@v1.75.0
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//	go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
//	go install github.com/bufbuild/protoschema-plugins/cmd/protoc-gen-jsonschema@v0.6.0
//
// and run go generate. Nothing else is fetched: third_party holds validate.proto of protovalidate v1.2.2.

//go:generate buf generate
//go:generate ./schema.sh
//go:generate buf generate --template buf.gen.crd.yaml
