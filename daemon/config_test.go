package daemon

import (
	"strings"
	"testing"
	"time"
)

func TestConfigRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"limitz: {}":                           "limitz: unknown; it must be one of environment, production, limits",
		"limits: {maxFault: 1}":                "limits.maxFault: unknown; it must be one of maxDuration, maxFaults",
		"limits: {maxFaults: 0}":               "limits.maxFaults",
		"limits: {maxFaults: -1}":              "limits.maxFaults",
		"limits: {maxFaults: 1001}":            "limits.maxFaults",
		"limits: {maxFaults: many}":            `line 1: limits.maxFaults: "many" must be a whole number`,
		"limits: {maxFaults: 1.5}":             `limits.maxFaults: "1.5" must be a whole number`,
		"limits: {maxFaults: 1.0}":             `limits.maxFaults: "1.0" must be a whole number`,
		"limits: {maxPercent: ten}":            `limits.maxPercent: "ten" must be a number`,
		"limits: {maxDuration: 5}":             `limits.maxDuration: "5" must be a duration, such as 30s`,
		"limits: 5":                            `limits: "5" must be keys with values: maxDuration, maxFaults`,
		"\nallow: {kinds: cpu}":                `line 2: allow.kinds: "cpu" must be a list`,
		"allow: {kinds: [[cpu]]}":              "allow.kinds[0]: a list must be one text",
		"node: {allow: 1}":                     `node.allow: "1" must be true or false`,
		"production: maybe":                    `production: "maybe" must be true or false`,
		"access: {inject: {uids: [1.5]}}":      `access.inject.uids[0]: "1.5" must be a whole number in 0..4294967295`,
		"access: {kill: {gids: [4294967296]}}": `access.kill.gids[0]: "4294967296" must be a whole number in 0..4294967295`,
		"limits: {}\n---\nallow: {}":           "it has more than one document",
		"limits: {maxTargets: 0}":              "limits.maxTargets",
		"limits: {maxExperiments: 0}":          "limits.maxExperiments",
		"limits: {maxPercent: 0}":              "limits.maxPercent: 0 is out of range",
		"limits: {maxPercent: 100.5}":          "limits.maxPercent: 100.5",
		"limits: {maxPercent: .nan}":           "limits.maxPercent: NaN",
		"allow: {namespaces: [a/b]}":           "allow.namespaces: \"a/b\" is no name",
		"protected: {namespaces: ['[']}":       "protected.namespaces: \"[\" is no name",
		"limits: {perDay: 0s}":                 "limits.perDay",
		"limits: {perDay: 25h}":                "limits.perDay",
		"allow: {kinds: [cpus]}":               `allow.kinds: "cpus" is no kind of fault; it must be one of backlog, block, connect`,
		"allow: {units: [shop]}":               "allow.units: \"shop\"",
		"allow: {units: ['[.service']}":        "allow.units: \"[.service\"",
		"allow: {cgroups: [shop]}":             "allow.cgroups: \"shop\"",
		"allow: {cgroups: [/a/../b]}":          "allow.cgroups: \"/a/../b\"",
		"allow: {hours: {to: '8'}}":            "allow.hours.to: \"8\"",
		"allow: {hours: {day: [mon]}}":         "day",
		"limits: {maxDuration: 0s}":            "limits.maxDuration",
		"limits: {maxDuration: -1h}":           "limits.maxDuration",
		"limits: {maxDuration: 25h}":           "limits.maxDuration",
		"limits: {maxDuration: soon}":          "soon",
		"protected: {cgroups: [/a/../b]}":      "protected",
		"protected: {apiServers: [10.0.0.1]}":  "10.0.0.1",
		"access: {inject: {uids: [root]}}":     "root",
		"access: {inject: {uids: [-1]}}":       "-1",
		"access: {delete: {}}":                 "delete",
		"environment: {a: b}":                  "line 1",
		"- limits":                             "line 1",
		"limits: {maxFaults: 1}\nlimits: {}":   "limits",
		"limits: &a {maxFaults: *a}":           "a",
		"\t":                                   "yaml",
	} {
		c := DefaultConfig()
		if err := c.parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q in it", text, err, says)
		}
	}
}

// FuzzConfig: whatever a file holds, it is refused or keeps to the limits.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "---", "# nothing\n", "environment: staging",
		"limits: {maxDuration: 10m, maxFaults: 3}",
		"limits: {maxDuration: 24h, maxFaults: 1000}",
		"limits:\n  maxDuration: 1e9h\n",
		"limits: {maxFaults: .nan}",
		"protected:\n  names: [postgres]\n  cgroups: [/system.slice/db.service]\n  allowRoot: true\n",
		"access: {inject: {uids: [1000], gids: [27]}, kill: {uids: [1000]}}",
		"a: &a [*a]", "? {}", "{", "[]", "!!binary x", "\xff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := DefaultConfig()
		if c.parse(text) != nil {
			return
		}
		if c.Limits.MaxDuration <= 0 || c.Limits.MaxDuration > 24*time.Hour || c.Limits.MaxFaults < 1 || c.Limits.MaxFaults > 1000 {
			t.Errorf("%q: took limits %+v", text, c.Limits)
		}
		if err := c.protection(1).Validate(); err != nil {
			t.Errorf("%q: took what protects nothing: %v", text, err)
		}
	})
}
