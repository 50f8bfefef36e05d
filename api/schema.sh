#!/bin/sh
# Makes experiment.schema.json of the schema: the plugin makes a file of every message, and one with all that an Experiment holds is wanted.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
buf generate --template buf.gen.schema.yaml -o "$made"
cp "$made/faultd.v1alpha1.Experiment.jsonschema.bundle.json" experiment.schema.json
