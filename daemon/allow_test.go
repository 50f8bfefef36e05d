package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faultd/cgroup"
)

func readConfig(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "faultd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadConfig(path)
}

// TestEnvironmentLock: a file must say where this is, and that it is not production.
func TestEnvironmentLock(t *testing.T) {
	for text, says := range map[string]string{
		"":                                            "environment: missing",
		"limits: {maxFaults: 3}":                      "environment: missing",
		"production: false":                           "environment: missing",
		"environment: staging":                        "production: missing; say production: false if staging is not production",
		"environment: staging\nproduction: true":      "faultd does not run in production",
		"environment: ' '\nproduction: false":         "environment: missing",
		"environment: prod\nproduction: false":        `"prod" is a name of production`,
		"environment: Production-EU\nproduction: no":  "name of production",
		"environment: live 2\nproduction: false":      "name of production",
		"environment: staging\nproduction: false":     "",
		"environment: pre-prod\nproduction: false":    "",
		"environment: livestock\nproduction: false":   "",
		"environment: staging\nproduction: perhaps":   "perhaps",
		"environment: staging\nproduction: [false]":   "line 2",
		"environment: productivity\nproduction: no\n": "",
	} {
		_, err := readConfig(t, text)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	if _, err := ReadConfig(""); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestAllowRefuses(t *testing.T) {
	thursday := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		allow  string
		kind   string
		path   string
		length time.Duration
		says   string
	}{
		"everything":        {"{}", "cpu", "/a", time.Hour, ""},
		"kind":              {"{kinds: [dns, http]}", "cpu", "/a", time.Hour, "kind: cpu; allow.kinds has dns, http"},
		"allowed kind":      {"{kinds: [dns, cpu]}", "cpu", "/a", time.Hour, ""},
		"unit":              {"{units: [shop.service]}", "cpu", "/system.slice/db.service", time.Hour, "target: /system.slice/db.service is in none of allow.units (shop.service)"},
		"allowed unit":      {"{units: ['shop-*.service']}", "cpu", "/system.slice/shop-1.service", time.Hour, ""},
		"below a unit":      {"{units: [shop.service]}", "cpu", "/system.slice/shop.service/worker", time.Hour, ""},
		"above a unit":      {"{units: [shop.service]}", "cpu", "/system.slice", time.Hour, "is in none of"},
		"allowed cgroup":    {"{units: [x.service], cgroups: [/shop]}", "cpu", "/shop/a/b", time.Hour, ""},
		"name that begins":  {"{cgroups: [/shop]}", "cpu", "/shopping", time.Hour, "is in none of"},
		"all cgroups":       {"{cgroups: [/]}", "cpu", "/shopping", time.Hour, ""},
		"hours":             {"{hours: {from: '09:00', to: '13:00'}}", "cpu", "/a", time.Hour, ""},
		"beyond the hours":  {"{hours: {from: '09:00', to: '13:00'}}", "cpu", "/a", time.Hour + 1, "allow.hours: it would go on until Thu 13:00 UTC"},
		"outside the hours": {"{hours: {days: [sat, sun]}}", "cpu", "/a", time.Hour, "allow.hours: it is Thu 12:00 UTC; the hours are sat sun"},
	} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			if err := config.parse([]byte("allow: " + c.allow)); err != nil {
				t.Fatal(err)
			}
			err := config.Allow.fault(c.kind, cgroup.Target{Path: c.path}, thursday, thursday.Add(c.length))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// TestBudget: the time of a day is counted while a fault is on, over restarts, and anew each day.
func TestBudget(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() *budget {
		b, err := newBudget(dir, time.Hour, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	b := open()
	pass := func(d time.Duration, on bool) {
		now = now.Add(d)
		if b.tick(now, on) {
			if err := b.save(b.spent); err != nil {
				t.Fatal(err)
			}
		}
	}
	admits := func(d time.Duration) bool { return b.admit(now, now.Add(d)) == nil }
	pass(0, false)
	pass(time.Hour, true) // nothing was on until now
	if !admits(time.Hour) || admits(time.Hour+1) {
		t.Error("an hour is not what there is at first")
	}
	pass(20*time.Minute, true)
	pass(20*time.Minute, false)
	pass(time.Hour, false)
	if b.Used != 40*time.Minute || !admits(20*time.Minute) || admits(21*time.Minute) {
		t.Errorf("used %s", b.Used)
	}
	b = open()
	if admits(21*time.Minute) || !admits(20*time.Minute) {
		t.Errorf("after a restart: used %s", b.Used)
	}
	if err := b.admit(now, now.Add(time.Hour)); !strings.Contains(err.Error(), "limits.perDay: faults were on for 40m0s of 1h0m0s today, 1h0m0s would be too long; it begins anew at midnight Europe/Berlin") {
		t.Error(err)
	}
	now = time.Date(2026, 11, 26, 22, 59, 59, 0, time.UTC)
	if admits(time.Hour) {
		t.Error("it is anew before midnight")
	}
	now = now.Add(time.Second)
	if !admits(time.Hour) {
		t.Error("it is not anew at midnight in Berlin")
	}
	if b = open(); b.Used != 40*time.Minute {
		t.Errorf("read again: used %s", b.Used)
	}
}

// TestBudgetThatCannotBeRead: whatever else is in the file might mean that nothing is left, so the daemon does not start and says what to do;
// without a limit nobody reads it.
func TestBudgetThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for _, junk := range []string{"", "{", "junk", "null", "{}", "[]", "7", `{"day":""}`, `{"day":"today","usedNanoseconds":1}`, `{"day":"2026-11-26","used":1}`,
		`{"day":"2026-11-26","usedNanoseconds":-1}`, `{"day":"2026-11-26","usedNanoseconds":90000000000001}`, `{"day":"2026-11-26","usedNanoseconds":1}{`, "\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, budgetName), []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newBudget(dir, time.Hour, time.UTC); err == nil || !strings.Contains(err.Error(), "if nothing is left to be kept, remove") {
			t.Errorf("%q: %v", junk, err)
		}
		if _, err := newBudget(dir, wholeDay, time.UTC); err != nil {
			t.Errorf("%q, without a limit: %v", junk, err)
		}
	}
}
