package experiment

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// everything has every field, once: a line each, so that each can be wrong in its own way.
const everything = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata:
  name: shop
  labels:
    team: checkout
  owner: ann
  links:
  - https://example.com/runbook
spec:
  hypothesis: the shop sells without its cache
  target:
    cgroup: /shop
  targets:
  - name: db
    unit: redis.service
  - name: webs
    selectors: ["cgroup:/web-*", "unit:web"]
    mode: fixed
    value: 2
  faults:
  - name: one
    percent: 50
    everyNth: 2
    skipFirst: 1
    maxHits: 9
    rate: 5
    dice: call
    offset: 1s
    duration: 3s
    connect:
      errno: ECONNREFUSED
      ports: ["6379"]
  - name: two
    target: db
    after: one
    packet:
      loss: 10
  - name: three
    target: webs
    connect:
      errno: EPERM
  duration: 10s
  before: 4s
  recovery: 1s
  after: 6s
  seed: 7
  limits:
    maxTargets: 4
    duration: 1m
  stop:
    file: /run/stop
    interval: 2s
    lostTargets: 20
    node:
      cpu: 80
      memory: 30
      io: 60
      freeMemory: 5
      load: 4
    errorBudget:
      url: http://127.0.0.2:9090
      budget: 30s
      interval: 10s
      objectives:
      - name: latency
        query: a
        compare: < 0.3
        weight: 2
      - name: errors
        query: b
        compare: < 0.01
  probes:
  - name: web
    when: [before, during, after]
    interval: 100ms
    timeout: 2s
    attempts: 2
    onFailure: abort
    tolerance:
      value: ok
      range:
        min: 1
        max: 2
      regex: o.
      failures:
        percent: 5
        window: 1s
      baseline:
        percentile: 99
        times: 1.5
    http:
      url: http://127.0.0.1/
      method: POST
      status: [200]
      latency: 1s
      headers:
        Host: shop
      body: x
      tls:
        serverName: shop
        ca: /etc/ca.pem
  - name: redis
    tcp:
      address: 127.0.0.1:6379
      send: PING
      latency: 500ms
  - name: script
    command:
      argv: ["true"]
      exitCode: 1
      user: nobody
  - name: names
    dns:
      name: example.com
      type: AAAA
      server: 127.0.0.1:53
  - name: hits
    when: [during]
    counter:
      fault: one
      counter: matched
  - name: stall
    pressure:
      resource: cpu
      cgroup: /sys/fs/cgroup/shop
      stall: full
  - name: slo
    prometheus:
      url: http://127.0.0.1:9090
      query: up
  - name: health
    when: [before, chaos]
    initialDelay: 1s
    jsonPath: $.a[0]
    tolerance:
      compare: <= 5
    grpc:
      address: 127.0.0.1:9000
      service: shop
      tls:
        cert: /a.pem
        key: /a.key
  - name: errors
    log:
      path: /var/log/shop.log
      match: ERROR
`

// bursts and ramp replace what everything has instead of a schedule.
var (
	bursts = strings.NewReplacer("    offset: 1s\n", "", "    duration: 3s\n", "", "  duration: 10s\n", "  schedule:\n    bursts:\n      on: 2s\n      off: 1s\n      count: 3\n", "    after: one\n", "").Replace(everything)
	ramp   = strings.NewReplacer("    offset: 1s\n", "", "    duration: 3s\n", "", "    percent: 50\n", "", "  duration: 10s\n", "  schedule:\n    ramp: [1, 10]\n    every: 5s\n", "    after: one\n", "").Replace(everything)
)

// anyFault checks nothing of a fault's parameters but one error and one seed.
func anyFault(spec *v1.FaultSpec) error {
	switch {
	case spec.GetConnect().GetErrno() == "ENOSUCH":
		return errors.New("connect.errno: ENOSUCH is unknown")
	case spec.GetPacket() != nil && spec.Seed != nil:
		return errors.New("packet: seed was given")
	case spec.GetPacket().GetDelay() != "" && spec.Percent != nil:
		return errors.New("packet: percent was given")
	}
	return nil
}

func mustRead(t *testing.T, text string) *Plan {
	t.Helper()
	p, err := Read("shop.yaml", []byte(text), anyFault)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRead(t *testing.T) {
	p := mustRead(t, everything)
	if p.Name != "shop" || p.Owner != "ann" || p.Labels["team"] != "checkout" || len(p.Links) != 1 || p.Seed != 7 {
		t.Errorf("the plan is %+v", p)
	}
	want := []Change{
		{Fault: 2, On: true}, {At: time.Second, On: true}, {At: 4 * time.Second}, {At: 4 * time.Second, Fault: 1, On: true},
		{At: 10 * time.Second, Fault: 2}, {At: 14 * time.Second, Fault: 1},
	}
	if !slices.Equal(p.Changes, want) {
		t.Errorf("changes are %v, want %v", p.Changes, want)
	}
	if p.Length != 25*time.Second {
		t.Errorf("it takes %s", p.Length)
	}
	one, two := p.Faults[0].Spec, p.Faults[1].Spec
	if one.GetTarget() != "cgroup:/shop" || one.GetDuration() != "3s" || one.GetPercent() != 50 || one.GetEveryNth() != 2 || one.GetSkipFirst() != 1 ||
		one.GetMaxHits() != 9 || one.GetRate() != 5 || one.GetDice() != "call" || one.GetSeed() != 7 || one.GetConnect().GetErrno() != "ECONNREFUSED" {
		t.Errorf("fault one is %v", one)
	}
	if two.GetTarget() != "unit:redis.service" || two.GetDuration() != "10s" || two.Seed != nil || two.GetPacket().GetLoss() != 10 || p.Faults[1].Kind != "packet" {
		t.Errorf("fault two is %v", two)
	}
	if web := p.Probes[0]; web.Interval != 100*time.Millisecond || web.Attempts != 2 || !web.Aborts || web.Tolerance.Times != 1.5 || web.maxLatency() != time.Second {
		t.Errorf("probe web is %+v", web)
	}
	if redis := p.Probes[1]; redis.Interval != time.Second || redis.Timeout != time.Second || len(redis.When) != 3 || redis.Aborts {
		t.Errorf("probe redis is %+v", redis)
	}
}

// badInput is one line that is replaced, in one of the documents, by another that is wrong.
type badInput struct {
	text, old, new string
	// want is what must be said of that line: "field: ...words".
	want string
}

func badInputs() []badInput {
	e := everything
	list := []badInput{
		{e, "apiVersion: faultd.io/v1alpha1", "apiVersion: v1", "apiVersion: must equal `faultd.io/v1alpha1`, got \"v1\""},
		{e, "kind: Experiment", "kind: Schedule", "kind: must equal `Experiment`"},
		{e, "  name: shop", "  name: Shop_1", "metadata.name: does not match"},
		{e, "  name: shop", "  nam: shop", "metadata.nam: unknown field; here may be name, labels, owner, links"},
		{e, "    team: checkout", "    team: [a]", "metadata.labels.team: this must be one value"},
		{e, "  owner: ann", "  owner: " + strings.Repeat("a", 257), "metadata.owner: "},
		{e, "  - https://example.com/runbook", "  - a b", "metadata.links[0]: must be a valid URI"},
		{e, "  hypothesis: the shop sells without its cache", "  hypothesis: ''", "spec.hypothesis: "},
		{e, "    cgroup: /shop", "    cgroup: ''", "spec.target.cgroup: "},
		{e, "    cgroup: /shop", "    pid: -1", "spec.target.pid: must be greater than 0, got -1"},
		{e, "    cgroup: /shop", "    pid: x", `spec.target.pid: "x" is no whole number`},
		{e, "    cgroup: /shop", "    pot: x", "spec.target.pot: unknown field; here may be name, cgroup, unit, pid, container, pod, pods, selectors, mode, value"},
		{e, "  - name: db", "  - name: -db", "spec.targets[0].name: does not match"},
		{e, "  - name: db", "  - name: ''", "spec.targets[0].name: missing"},
		{e, "    unit: redis.service", "    unit: ''", "spec.targets[0].unit: "},
		{e, "    unit: redis.service", "    name: db2", "spec.targets[0].name: given twice"},
		{e, "    mode: fixed", "    mode: most", "spec.targets[1].mode: must be in list [all, one, fixed, percent, random-max-percent], got \"most\""},
		{e, "    value: 2", "    value: 0", "spec.targets[1].value: missing; fixed needs it"},
		{e, "    value: 2", "    value: 1.5", "spec.targets[1].value: 1.5 is no whole number of targets"},
		{e, "    value: 2", "    value: two", `spec.targets[1].value: "two" is no number`},
		{e, `    selectors: ["cgroup:/web-*", "unit:web"]`, "    selectors: [a, a]", "spec.targets[1].selectors: "},
		{e, `    selectors: ["cgroup:/web-*", "unit:web"]`, "    selectors: web", "spec.targets[1].selectors: this must be a list"},
		{e, "  - name: one", "  - name: ''", "spec.faults[0].name: does not match"},
		{e, "  - name: two", "  - name: one", `spec.faults[1].name: "one" is the name of spec.faults[0] already`},
		{e, "    percent: 50", "    percent: 0", "spec.faults[0].percent: must be greater than 0 and less than or equal to 100, got 0"},
		{e, "    percent: 50", "    percent: 101", "spec.faults[0].percent: must be greater than 0 and less than or equal to 100, got 101"},
		{e, "    percent: 50", "    percent: half", `spec.faults[0].percent: "half" is no number`},
		{e, "    percent: 50", "    percent: NaN", "spec.faults[0].percent: "},
		{e, "    everyNth: 2", "    everyNth: -2", `spec.faults[0].everyNth: "-2" is no whole number`},
		{e, "    everyNth: 2", "    every_nth: 2.5", `spec.faults[0].every_nth: "2.5" is no whole number`},
		{e, "    skipFirst: 1", "    skipFirst: [1]", "spec.faults[0].skipFirst: this must be one value"},
		{e, "    maxHits: 9", "    maxHits: many", `spec.faults[0].maxHits: "many" is no whole number`},
		{e, "    rate: 5", "    rate: -5", "spec.faults[0].rate: "},
		{e, "    dice: call", "    dice: six", `spec.faults[0].dice: must be in list [call, thread, process], got "six"`},
		{e, "    offset: 1s", "    offset: soon", `spec.faults[0].offset: "soon" is no duration`},
		{e, "    offset: 1s", "    offset: -1s", "spec.faults[0].offset: -1s is out of range"},
		{e, "    duration: 3s", "    duration: 0s", "spec.faults[0].duration: 0s is out of range"},
		{e, "    duration: 3s", "    duration: 3", `spec.faults[0].duration: "3" is no duration`},
		{e, "    connect:", "    conect:", "spec.faults[0].conect: unknown field; here may be target, duration, percent"},
		{e, "      errno: ECONNREFUSED", "      errno: ENOSUCH", "spec.faults[0].connect.errno: ENOSUCH is unknown"},
		{e, "      errno: ECONNREFUSED", "      erno: E", "spec.faults[0].connect.erno: unknown field; here may be errno"},
		{e, `      ports: ["6379"]`, "      ports: 6379", "spec.faults[0].connect.ports: this must be a list"},
		{e, "    target: db", "    target: cache", `spec.faults[1].target: there is no target "cache"; there is db, webs`},
		{e, "    after: one", "    after: nobody", `spec.faults[1].after: there is no fault "nobody"; there is one, three, two`},
		{e, "    after: one", "    after: two", "spec.faults[1].after: two never starts: two comes after two"},
		{e, "      loss: 10", "      loss: 110", "spec.faults[1].packet.loss: "},
		{e, "      loss: 10", "      loss: yes", `spec.faults[1].packet.loss: "yes" is no number`},
		{e, "  duration: 10s", "  duration: 8d", `spec.duration: "8d" is no duration`},
		{e, "  duration: 10s", "  duration: 200h", "spec.duration: 200h is out of range; it must be in 1ms..168h0m0s"},
		{e, "  before: 4s", "  waitForTargets: 0s", "spec.waitForTargets: 0s is out of range; it must be in 1ms..168h0m0s"},
		{e, "  before: 4s", "  waitForTargets: soon", `spec.waitForTargets: "soon" is no duration; write it as 150ms, 2s or 5m`},
		{e, "  before: 4s", "  before: -4s", "spec.before: -4s is out of range"},
		{e, "  recovery: 1s", "  recovery: x", "spec.recovery: "},
		{e, "  after: 6s", "  after: 6", "spec.after: "},
		{e, "  seed: 7", "  seed: -7", "spec.seed: "},
		{e, "  seed: 7", "  sed: 7", "spec.sed: unknown field; here may be hypothesis, target, targets, faults, schedule"},
		{e, "    maxTargets: 4", "    maxTargets: 1", "spec.limits.maxTargets: 4 targets would be hurt (cgroup:/shop, cgroup:/web-*,unit:web, unit:redis.service), and 1 is the limit"},
		{e, "    duration: 1m", "    duration: 20s", "spec.limits.duration: it takes 25s in all, and 20s is the limit"},
		{e, "    file: /run/stop", "    file: stop", "spec.stop.file: does not match"},
		{e, "    interval: 2s", "    interval: 0s", "spec.stop.interval: 0s is out of range; it must be in 1ms..168h0m0s"},
		{e, "    lostTargets: 20", "    lostTargets: 100", "spec.stop.lostTargets: must be greater than or equal to 0 and less than 100, got 100"},
		{e, "    lostTargets: 20", "    lostTargets: all", `spec.stop.lostTargets: "all" is no number`},
		{e, "    lostTargets: 20", "    targets: 20", "spec.stop.targets: unknown field; here may be file, node, errorBudget, lostTargets, interval"},
		{e, "      cpu: 80", "      cpu: 101", "spec.stop.node.cpu: "},
		{e, "      memory: 30", "      memory: -1", "spec.stop.node.memory: "},
		{e, "      io: 60", "      io: much", `spec.stop.node.io: "much" is no number`},
		{e, "      freeMemory: 5", "      freeMemory: 512MiB", `spec.stop.node.freeMemory: "512MiB" is no number`},
		{e, "      load: 4", "      load: -4", "spec.stop.node.load: "},
		{e, "      budget: 30s", "      budget: 0s", "spec.stop.errorBudget.budget: 0s is out of range"},
		{e, "      budget: 30s", "      budget: ''", "spec.stop.errorBudget.budget: "},
		{e, "      interval: 10s", "      interval: often", `spec.stop.errorBudget.interval: "often" is no duration`},
		{e, "      - name: errors", "      - name: latency", `spec.stop.errorBudget.objectives[1].name: "latency" is the name of spec.stop.errorBudget.objectives[0] already`},
		{e, "        query: b", "        query: ''", "spec.stop.errorBudget.objectives[1].query: "},
		{e, "        compare: < 0.3", "        compare: 0.3", `spec.stop.errorBudget.objectives[0].compare: "0.3" is no comparison`},
		{e, "        weight: 2", "        weight: -2", "spec.stop.errorBudget.objectives[0].weight: "},
		{e, "        weight: 2", "        wait: 2", "spec.stop.errorBudget.objectives[0].wait: unknown field; here may be name, query, compare, weight"},
		{e, "  - name: redis", "  - name: web", `spec.probes[1].name: "web" is the name of spec.probes[0] already`},
		{e, "    when: [before, during, after]", "    when: [before, later]", `spec.probes[0].when[1]: must be in list [before, during, after, chaos], got "later"`},
		{e, "    when: [before, during, after]", "    when: [before, before]", "spec.probes[0].when: "},
		{e, "    when: [before, during, after]", "    when: before", "spec.probes[0].when: this must be a list"},
		{e, "    interval: 100ms", "    interval: 0s", "spec.probes[0].interval: 0s is out of range"},
		{e, "    timeout: 2s", "    timeout: never", "spec.probes[0].timeout: "},
		{e, "    attempts: 2", "    attempts: 101", "spec.probes[0].attempts: must be less than or equal to 100, got 101"},
		{e, "    onFailure: abort", "    onFailure: panic", `spec.probes[0].onFailure: must be in list [record, abort], got "panic"`},
		{e, "      value: ok", "      vale: ok", "spec.probes[0].tolerance.vale: unknown field; here may be value, range, regex, failures, baseline, compare"},
		{e, "        min: 1", "        min: inf", "spec.probes[0].tolerance.range.min: "},
		{e, "      regex: o.", "      regex: '('", `spec.probes[0].tolerance.regex: "(" is no regular expression`},
		{e, "        percent: 5", "        percent: 100", "spec.probes[0].tolerance.failures.percent: "},
		{e, "        window: 1s", "        window: 1ms", "spec.probes[0].tolerance.failures.window: 1ms is below the interval, 100ms"},
		{e, "        percentile: 99", "        percentile: 0", "spec.probes[0].tolerance.baseline.percentile: "},
		{e, "        times: 1.5", "        times: 0.5", "spec.probes[0].tolerance.baseline.times: "},
		{e, "      url: http://127.0.0.1/", "      url: ftp://a", "spec.probes[0].http.url: does not match"},
		{e, "      url: http://127.0.0.1/", `      url: "http://a b"`, "spec.probes[0].http.url: "},
		{e, "      method: POST", "      method: post", "spec.probes[0].http.method: must be in list"},
		{e, "      status: [200]", "      status: [99]", "spec.probes[0].http.status[0]: "},
		{e, "      status: [200]", "      status: 200", "spec.probes[0].http.status: this must be a list"},
		{e, "      latency: 1s", "      latency: 3s", "spec.probes[0].http.latency: 3s is above the timeout, 2s"},
		{e, "        Host: shop", "        Host: [shop]", "spec.probes[0].http.headers.Host: this must be one value"},
		{e, "        ca: /etc/ca.pem", "        insecure: yes", `spec.probes[0].http.tls.insecure: "yes" is neither true nor false`},
		{e, "        ca: /etc/ca.pem", "        insecure: true", "spec.probes[0].http.tls.insecure: true was given, and ca or serverName"},
		{e, "        ca: /etc/ca.pem", "        ca: [a]", "spec.probes[0].http.tls.ca: this must be one value"},
		{e, "    jsonPath: $.a[0]", "    jsonPath: a.b", `spec.probes[7].jsonPath: "a.b" is no path; write it as $.items[0].state`},
		{e, "    jsonPath: $.a[0]", "    jsonPath: $.a[*]", `spec.probes[7].jsonPath: "$.a[*]" is no path`},
		{e, "    jsonPath: $.a[0]", "    jsonpath: $", "spec.probes[7].jsonpath: unknown field; here may be name, when"},
		{e, "    initialDelay: 1s", "    initialDelay: soon", `spec.probes[7].initialDelay: "soon" is no duration`},
		{e, "    initialDelay: 1s", "    initialDelay: 4s", "spec.probes[7].initialDelay: 4s is not below the 4s that are watched before the faults"},
		{e, "    when: [before, chaos]", "    when: [during, chaos]", "spec.probes[7].when: both during and chaos were given"},
		{e, "      compare: <= 5", "      compare: 5", `spec.probes[7].tolerance.compare: "5" is no comparison; write <, <=,`},
		{e, "      compare: <= 5", "      compare: < five", `spec.probes[7].tolerance.compare: "< five" is no comparison`},
		{e, "      address: 127.0.0.1:9000", "      address: 127.0.0.1", "spec.probes[7].grpc.address: must be a valid host"},
		{e, "      path: /var/log/shop.log", "      path: shop.log", "spec.probes[8].log.path: does not match"},
		{e, "      match: ERROR", "      match: '['", `spec.probes[8].log.match: "[" is no regular expression`},
		{e, "      match: ERROR", "      match: ''", "spec.probes[8].log.match: "},
		{e, "      user: nobody", "      user: [nobody]", "spec.probes[2].command.user: this must be one value"},
		{e, "      query: up", "      qery: up", "spec.probes[6].prometheus.qery: unknown field; here may be url, query"},
		{e, "    tcp:", "    udp:", "spec.probes[1].udp: unknown field; here may be name, when, interval"},
		{e, "      address: 127.0.0.1:6379", "      address: 127.0.0.1", "spec.probes[1].tcp.address: must be a valid host"},
		{e, "      latency: 500ms", "      latency: 0s", "spec.probes[1].tcp.latency: 0s is out of range"},
		{e, `      argv: ["true"]`, "      argv: []", "spec.probes[2].command.argv: "},
		{e, `      argv: ["true"]`, "      argv: ['']", "spec.probes[2].command.argv[0]: this is the program"},
		{e, `      argv: ["true"]`, "      argv: ls", "spec.probes[2].command.argv: this must be a list"},
		{e, "      exitCode: 1", "      exitCode: 256", "spec.probes[2].command.exitCode: must be less than or equal to 255, got 256"},
		{e, "      name: example.com", "      name: ''", "spec.probes[3].dns.name: "},
		{e, "      name: example.com", "      name: a..b", `spec.probes[3].dns.name: "a..b" is no name`},
		{e, "      type: AAAA", "      type: ALL", "spec.probes[3].dns.type: must be in list"},
		{e, "      server: 127.0.0.1:53", "      server: 127.0.0.1", "spec.probes[3].dns.server: must be a valid host"},
		{e, "    when: [during]", "    when: [after]", "spec.probes[4].when: a fault counts only while it is on"},
		{e, "      fault: one", "      fault: none", `spec.probes[4].counter.fault: there is no fault "none"`},
		{e, "      counter: matched", "      counter: hits", "spec.probes[4].counter.counter: must be in list"},
		{e, "      resource: cpu", "      resource: net", "spec.probes[5].pressure.resource: must be in list"},
		{e, "      cgroup: /sys/fs/cgroup/shop", "      cgroup: shop", "spec.probes[5].pressure.cgroup: does not match"},
		{e, "      stall: full", "      stall: half", "spec.probes[5].pressure.stall: must be in list"},
		{e, "      url: http://127.0.0.1:9090", "      url: 127.0.0.1:9090", "spec.probes[6].prometheus.url: does not match"},
		{e, "      query: up", "      query: ''", "spec.probes[6].prometheus.query: "},
		{bursts, "      on: 2s", "      on: 0s", "spec.schedule.bursts.on: 0s is out of range"},
		{bursts, "      off: 1s", "      off: never", "spec.schedule.bursts.off: "},
		{bursts, "      count: 3", "      count: 0", "spec.schedule.bursts.count: "},
		{bursts, "  before: 4s", "  duration: 5s", "spec.duration: 5s was given; the schedule says"},
		{ramp, "    ramp: [1, 10]", "    ramp: [1, 110]", "spec.schedule.ramp[1]: must be greater than 0 and less than or equal to 100, got 110"},
		{ramp, "    every: 5s", "    every: 0s", "spec.schedule.every: 0s is out of range"},
		{ramp, "    rate: 5", "    offset: 5s", "spec.faults[0].offset: was given, and spec.schedule says it"},
		{ramp, "    rate: 5", "    duration: 5s", "spec.faults[0].duration: was given"},
		{ramp, "    rate: 5", "    percent: 5", "spec.faults[0].percent: was given"},
		{repeat, "    cron: 0 10 * * mon-fri", "    cron: 0 25 * * *", `spec.repeat.cron: "0 25 * * *" is no schedule`},
		{repeat, "    cron: 0 10 * * mon-fri", "    cron: 0 10 30 feb *", `spec.repeat.cron: "0 10 30 feb *" is never due`},
		{repeat, "    cron: 0 10 * * mon-fri", "    cron: 0 10 * * sat", `spec.repeat.cron: "0 10 * * sat" is never due`},
		{repeat, "    cron: 0 10 * * mon-fri", "    meanDays: 0.5", "spec.repeat.meanDays: 0.5 is out of range; it must be in 1..365"},
		{repeat, "    cron: 0 10 * * mon-fri", "    at: noon", `spec.repeat.at: "noon" is no time; write it as 2026-12-01T10:30`},
		{repeat, "    timeZone: Europe/Berlin", "    timeZone: Berlin", `spec.repeat.timeZone: "Berlin" is no time zone`},
		{repeat, "    cron: 0 10 * * mon-fri", "    cron: ''", "spec.repeat.cron: give exactly one of at, cron and meanDays"},
		{repeat, "    days: [mon-fri]", "    days: [weekdays]", "spec.repeat.days"},
		{repeat, "    from: '09:00'", "    from: nine", "spec.repeat.from: "},
		{repeat, "    to: '17:00'", "    to: '08:00'", `spec.repeat.to: "08:00" is not after from ("09:00")`},
		{repeat, "    to: '17:00'", "    to: '09:01'", "spec.repeat.to: it takes up to 1m10s, and the hours of a day are 1m0s; it would never be due"},
		{ramp, "    ramp: [1, 10]", "    ramp: [1, ten]", `spec.schedule.ramp[1]: "ten" is no number`},
	}
	return list
}

// repeat is due on weekdays.
const repeat = `apiVersion: faultd.io/v1alpha1
kind: Experiment
metadata: {name: shop}
spec:
  hypothesis: it sells
  target: {cgroup: /shop}
  faults: [{name: one, connect: {errno: EPERM}}]
  duration: 1m
  probes: [{name: script, command: {argv: ["true"]}}]
  repeat:
    cron: 0 10 * * mon-fri
    timeZone: Europe/Berlin
    days: [mon-fri]
    from: '09:00'
    to: '17:00'
`

func TestRepeat(t *testing.T) {
	plan := mustRead(t, repeat)
	times, err := plan.Repeat.Times("shop", plan.Length)
	if err != nil {
		t.Fatal(err)
	}
	if next := times.Next(time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)); next.UTC().String() != "2026-11-30 09:00:00 +0000 UTC" {
		t.Errorf("it is due %s", next)
	}
	if over := mustRead(t, strings.Replace(repeat, "cron: 0 10 * * mon-fri", "at: 2020-01-01T10:00", 1)); over.Repeat == nil {
		t.Error("one that was due once is not taken")
	}
}

func TestBadInput(t *testing.T) {
	if n := len(badInputs()); n < 120 {
		t.Errorf("%d ways to be wrong are tried", n)
	}
	for _, test := range badInputs() {
		before, after, found := strings.Cut(test.text, test.old+"\n")
		if !found {
			t.Fatalf("no document has the line %q", test.old)
		}
		_, err := Read("shop.yaml", []byte(before+test.new+"\n"+after), anyFault)
		want := fmt.Sprintf("shop.yaml:%d: %s", strings.Count(before, "\n")+1, test.want)
		var problems *Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q was said of %q, want %q", err, test.new, want)
		}
	}
}

// TestBadDocuments are wrong as a whole, or in several places.
func TestBadDocuments(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "shop.yaml:1: the document is empty"},
		{"- a", "shop.yaml:1: this must be fields and their values, not a sequence"},
		{"a: [", "shop.yaml:1: this is no YAML"},
		{everything + "---\na: b\n", "a second document begins; a file holds one experiment"},
		{everything + "# " + strings.Repeat("x", maxDocument), "the document has"},
		{strings.Replace(everything, "    percent: 50\n", "    percent: 50\n    percent: 60\n", 1), "shop.yaml:24: spec.faults[0].percent: given twice; it stands in line 23 already"},
		{strings.Replace(everything, "  owner: ann", "  owner: &a ann", 1) + "x: *a", "x: *a is an alias"},
		{"apiVersion: faultd.io/v1alpha1\nkind: Experiment\nmetadata: {name: a}\n", "shop.yaml:1: spec: value is required"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    cgroup: /shop\n    unit: a\n", 1), "shop.yaml:14: spec.target.unit: cgroup was given already"},
		{strings.Replace(everything, "  target:\n    cgroup: /shop\n", "", 1), "spec.faults[0].target: missing, and there is no spec.target"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    pid: 7\n  waitForTargets: 5m\n", 1), "shop.yaml:14: spec.waitForTargets: 5m was given, and pid:7 is a target of fault one: a process that is not there yet has no number"},
		{strings.Replace(everything, "  duration: 10s\n", "", 1), "spec.faults[1].duration: missing, and there is no spec.duration"},
		{strings.Replace(everything, "    offset: 1s\n", "    after: two\n", 1), "one never starts: one comes after two comes after one"},
		{strings.Replace(everything, "        min: 1\n        max: 2\n", "        {}\n", 1), "range: give min, max or both"},
		{strings.Replace(everything, "        min: 1\n", "        min: 3\n", 1), "shop.yaml:82: spec.probes[0].tolerance.range: min 3 is above max 2"},
		{strings.Replace(everything, "[before, during, after]", "[before, after]", 1), "spec.probes[0].onFailure: abort has a meaning during the faults only"},
		{strings.Replace(everything, "[before, during, after]", "[during]", 1), "spec.probes[0].tolerance.baseline: needs tries before the faults"},
		{strings.Replace(everything, "    packet:\n", "    connect: {}\n    packet:\n", 1), "shop.yaml:38: spec.faults[1].packet: connect was given already"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    name: x\n", 1), "shop.yaml:12: spec.target: give one of cgroup, unit, pid, container, pod, pods and selectors"},
		{strings.Replace(everything, "    team: checkout\n", "    \"\": x\n", 1), "shop.yaml:5: metadata.labels[\"\"]: must be at least 1 characters"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    cgroup: /web-*\n", 1), "shop.yaml:12: spec.target.mode: missing; there may be several targets: it must be all, one,"},
		{strings.Replace(everything, "    mode: fixed\n", "    unit: web\n", 1), "shop.yaml:17: spec.targets[1]: give one of cgroup, unit, pid, container, pod, pods and selectors"},
		{strings.Replace(everything, "    mode: fixed\n", "    mode: one\n", 1), "shop.yaml:20: spec.targets[1].value: 2 was given; it has a meaning with fixed, percent"},
		{strings.Replace(everything, `    selectors: ["cgroup:/web-*", "unit:web"]`, "    unit: web", 1), "shop.yaml:19: spec.targets[1].mode: fixed was given, and unit:web means one target"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    cgroup: /shop\n    follow: true\n", 1), "shop.yaml:14: spec.target.follow: true was given; it has a meaning with container, pod and pods"},
		{strings.Replace(everything, "    cgroup: /shop\n", "    pods: shop\n    follow: true\n    mode: one\n", 1), "shop.yaml:15: spec.target.mode: one was given with follow, which hurts all that come"},
		{strings.Replace(everything, "    mode: fixed\n    value: 2\n", "    mode: percent\n    value: 101\n", 1), "shop.yaml:20: spec.targets[1].value: 101 is out of range; it must be in (0,100]"},
		{strings.Replace(everything, "        cert: /a.pem\n", "", 1), "shop.yaml:141: spec.probes[7].grpc.tls: give both cert and key, or neither"},
		{strings.Replace(everything, "      cpu: 80\n      memory: 30\n      io: 60\n      freeMemory: 5\n      load: 4\n", "      {}\n", 1), "spec.stop.node: give one of cpu, memory, io, freeMemory and load"},
		{strings.Replace(everything, "  stop:\n", "  stop: {}\n  stop:\n", 1), "spec.stop: given twice"},
		{strings.Replace(bursts, "      count: 3\n", "      count: 3\n    every: 1s\n", 1), "spec.schedule.every: only a ramp has steps"},
		{strings.Replace(bursts, "    bursts:\n", "    ramp: [1]\n    bursts:\n", 1), "spec.schedule: give one of bursts, ramp, steps and continuous"},
		{strings.Replace(bursts, "    percent: 50\n", "    offset: 1500ms\n", 1), "spec.faults[0]: one would be on until 3.5s of a burst that lasts 2s"},
		{strings.Replace(ramp, "    ramp: [1, 10]\n", "", 1), "spec.schedule: give one of bursts, ramp, steps and continuous"},
		{strings.Replace(ramp, "    ramp: [1, 10]\n", "    ramp: []\n", 1), "spec.schedule: give one of bursts, ramp, steps and continuous"},
		{strings.Replace(ramp, "    every: 5s\n", "", 1), "spec.schedule.every: missing"},
		{strings.Replace(ramp, "      loss: 10\n", "      delay: 10ms\n", 1), "fault two has no percentage to raise: packet: percent was given"},
	} {
		_, err := Read("shop.yaml", []byte(test.text), anyFault)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q was said, want %q", err, test.want)
		}
	}
}

// FuzzRead: whatever is read is a plan or an error, and what is wrong has a line.
func FuzzRead(f *testing.F) {
	for _, text := range []string{everything, bursts, ramp, strings.Replace(labDocument, "duration: 10s", stepped, 1)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Read("x", text, anyFault)
		var problems *Problems
		if err == nil && (len(p.Faults) == 0 || len(p.Probes) == 0 || len(p.Changes) < 2) {
			t.Fatalf("a plan without faults or probes: %+v", p)
		}
		if err != nil && (!errors.As(err, &problems) || problems.List[0].Line < 1) {
			t.Fatal(err)
		}
	})
}

// TestFollowingTarget: who follows is aimed at by the daemon, with one fault.
func TestFollowingTarget(t *testing.T) {
	text := strings.Replace(everything, "    cgroup: /shop\n", "    pods: shop?app=web\n    follow: true\n", 1)
	plan, err := Read("shop.yaml", []byte(text), anyFault)
	if err != nil {
		t.Fatal(err)
	}
	if f := plan.Faults[0]; f.Aim != nil || f.Spec.GetTarget() != "pods:shop?app=web" || !f.Spec.GetFollow() {
		t.Errorf("%+v", f)
	}
	would := &v1.Fault{Targets: []*v1.FaultTarget{{Target: &v1.Target{Path: "/a"}}, {Target: &v1.Target{Path: "/b"}}}}
	if err := (&Plan{MaxTargets: 1}).checkLimit([]*v1.Fault{would}); !errors.Is(err, ErrLimit) {
		t.Errorf("two targets where one may be: %v", err)
	}
}

// TestEveryKindStandsInAnExperiment: what FaultSpec has, ExperimentFault has, by the same name and number.
func TestEveryKindStandsInAnExperiment(t *testing.T) {
	ours := (&v1.ExperimentFault{}).ProtoReflect().Descriptor().Fields()
	theirs := (&v1.FaultSpec{}).ProtoReflect().Descriptor().Fields()
	for i := range theirs.Len() {
		field := theirs.Get(i)
		switch field.Name() {
		case "seed": // of the whole experiment
			continue
		case "all", "follow": // of the target
			continue
		}
		if same := ours.ByName(field.Name()); same == nil || same.Number() != field.Number() {
			t.Errorf("ExperimentFault has no %s = %d; add it to experiment.proto", field.Name(), field.Number())
		}
	}
}
