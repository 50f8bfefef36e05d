package main

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/compiler/protogen"
)

const (
	group   = "faultd.io"
	version = "v1alpha1"
)

// definition is a CustomResourceDefinition of apiextensions.k8s.io/v1 with one version.
type definition struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		Group    string              `yaml:"group"`
		Names    names               `yaml:"names"`
		Scope    string              `yaml:"scope"`
		Versions []definitionVersion `yaml:"versions"`
	} `yaml:"spec"`
}

type metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

type names struct {
	Kind       string   `yaml:"kind"`
	ListKind   string   `yaml:"listKind"`
	Plural     string   `yaml:"plural"`
	Singular   string   `yaml:"singular"`
	ShortNames []string `yaml:"shortNames,omitempty"`
	Categories []string `yaml:"categories,omitempty"`
}

type definitionVersion struct {
	Name    string `yaml:"name"`
	Served  bool   `yaml:"served"`
	Storage bool   `yaml:"storage"`
	// Subresources has status, for kinds that have one.
	Subresources map[string]any `yaml:"subresources,omitempty"`
	Columns      []column       `yaml:"additionalPrinterColumns"`
	Schema       struct {
		OpenAPI *schema `yaml:"openAPIV3Schema"`
	} `yaml:"schema"`
}

// column is what kubectl get shows.
type column struct {
	Name        string `yaml:"name"`
	Type        string `yaml:"type"`
	JSONPath    string `yaml:"jsonPath"`
	Description string `yaml:"description,omitempty"`
	// Priority above 0: with -o wide only.
	Priority int `yaml:"priority,omitempty"`
}

// write makes the file of one kind.
func write(plugin *protogen.Plugin, k kind, messages map[string]*protogen.Message) error {
	plural := strings.ToLower(k.name) + "s"
	if k.plural != "" {
		plural = k.plural
	}
	d := definition{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}
	d.Metadata = metadata{Name: plural + "." + group, Labels: map[string]string{"app.kubernetes.io/name": "faultd"}}
	d.Spec.Group, d.Spec.Scope = group, "Namespaced"
	if k.cluster {
		d.Spec.Scope = "Cluster"
	}
	d.Spec.Names = names{Kind: k.name, ListKind: k.name + "List", Plural: plural, Singular: strings.ToLower(k.name), ShortNames: k.shortNames, Categories: []string{"faultd"}}
	v := definitionVersion{Name: version, Served: true, Storage: true}
	v.Columns = append(k.columns, column{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"})
	root, err := rootSchema(k, messages)
	if err != nil {
		return fmt.Errorf("make the schema of %s: %w", k.name, err)
	}
	v.Schema.OpenAPI = root
	if k.status != "" && k.spec != "" {
		v.Subresources = map[string]any{"status": map[string]any{}}
	}
	d.Spec.Versions = []definitionVersion{v}

	var text bytes.Buffer
	text.WriteString("# Made of the schema by make generate: not to be edited.\n")
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(d); err != nil {
		return fmt.Errorf("write the definition of %s: %w", k.name, err)
	}
	_, err = plugin.NewGeneratedFile(plural+".yaml", "").Write(text.Bytes())
	return err
}

// rootSchema is that of an object: of its metadata, which the API server rules, the name alone can be asked.
func rootSchema(k kind, messages map[string]*protogen.Message) (*schema, error) {
	needed := "spec"
	if k.spec == "" {
		needed = "status"
	}
	root := &schema{Type: "object", Description: k.description, Required: []string{needed}, Rules: k.rules, Properties: map[string]*schema{
		"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"},
	}}
	for property, name := range map[string]string{"spec": k.spec, "status": k.status} {
		if name == "" {
			continue
		}
		message := messages[name]
		if message == nil {
			return nil, fmt.Errorf("find the message %s: the schema has none of this name", name)
		}
		s, err := ofMessage(message, nil)
		if err != nil {
			return nil, err
		}
		root.Properties[property] = s
	}
	if k.finish != nil {
		k.finish(root, messages)
	}
	return root, nil
}
