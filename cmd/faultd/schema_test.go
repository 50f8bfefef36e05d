package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// editorSchema is what editors complete and check documents by.
func editorSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../api/experiment.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func checkBySchema(schema *jsonschema.Schema, document string) error {
	var value any
	if err := yaml.Unmarshal([]byte(document), &value); err != nil {
		return err
	}
	return schema.Validate(value)
}

// TestExamplesFitTheSchema: editors take what faultd does, and the examples tell them where the schema is.
func TestExamplesFitTheSchema(t *testing.T) {
	schema := editorSchema(t)
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) < 5 {
		t.Fatalf("examples are %v, %v", examples, err)
	}
	for _, example := range examples {
		text, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBySchema(schema, string(text)); err != nil {
			t.Errorf("%s: %v", example, err)
		}
		if line, _, _ := strings.Cut(string(text), "\n"); line != "# yaml-language-server: $schema=../api/experiment.schema.json" {
			t.Errorf("%s does not say where its schema is: %q", example, line)
		}
	}
}

// TestSchemaRefuses: unknown fields, values out of range, wrong types and words.
func TestSchemaRefuses(t *testing.T) {
	schema := editorSchema(t)
	const good = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: shop}
spec:
  hypothesis: it sells
  target: {unit: shop.service}
  faults: [{name: gone, percent: 50, connect: {errno: EPERM}}]
  duration: 1m
  probes: [{name: shop, tcp: {address: "127.0.0.1:80"}, onFailure: abort}]
`
	if err := checkBySchema(schema, good); err != nil {
		t.Fatal(err)
	}
	for old, wrong := range map[string]string{
		"percent: 50":                 "percnt: 50",
		"percent: 50,":                "percent: 200,",
		"name: shop}":                 "name: Shop!}",
		"kind: Experiment":            "kind: Workflow",
		"onFailure: abort":            "onFailure: panic",
		"duration: 1m":                "duration: [1m]",
		"connect: {errno: EPERM}":     "connect: EPERM",
		"  hypothesis: it sells\n":    "  hypotheses: it sells\n",
		"tcp: {address":               "udp: {address",
		"probes: [{name: shop, tcp: ": "probes: {name: shop, tcp: ",
	} {
		document := strings.Replace(good, old, wrong, 1)
		if document == good {
			t.Fatalf("%q is not there", old)
		}
		if err := checkBySchema(schema, document); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}
