package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"

	"faultd/cgroup"
	"faultd/container"
)

// DefaultConfigFile is read if it is there and no other is named.
const DefaultConfigFile = "/etc/faultd/faultd.yaml"

// Config is a configuration file. Unknown keys are errors; what is left out has the default.
type Config struct {
	// Environment is the name of what this node is part of, such as "staging". A file must say it.
	Environment string `yaml:"environment"`
	// Production: whether that is production, where faultd does not run. A file must say that it is not.
	Production *bool  `yaml:"production"`
	Limits     Limits `yaml:"limits"`
	Allow      Allow  `yaml:"allow"`
	Protected  struct {
		// Names of processes whose cgroups may not be targets, beside the built-in ones.
		Names []string `yaml:"names"`
		// Cgroups are paths from the root of the tree.
		Cgroups []string `yaml:"cgroups"`
		// Namespaces of Kubernetes whose pods may not be targets; "*" stands for any part of a name.
		Namespaces []string `yaml:"namespaces"`
		// AllowRoot allows the root cgroup as a target.
		AllowRoot bool `yaml:"allowRoot"`
		// APIServers are addresses of Kubernetes' API server, beside the one that its environment names: "10.0.0.1:6443".
		APIServers []string `yaml:"apiServers"`
	} `yaml:"protected"`
	// Runtimes are the sockets of container runtimes; without names those are asked that are at their usual places.
	Runtimes container.Sockets `yaml:"runtimes"`
	Node     struct {
		// Allow allows faults of the kind node, which hurt everything on it.
		Allow bool `yaml:"allow"`
	} `yaml:"node"`
	// Access says who, beside root, may do what. Whoever can open the socket may read.
	Access struct {
		Inject Who `yaml:"inject"`
		Kill   Who `yaml:"kill"`
	} `yaml:"access"`
}

// Limits bound the blast radius.
type Limits struct {
	// MaxDuration bounds each fault.
	MaxDuration time.Duration `yaml:"maxDuration"`
	// MaxFaults, MaxTargets and MaxExperiments bound what goes on at once.
	MaxFaults      int `yaml:"maxFaults"`
	MaxTargets     int `yaml:"maxTargets"`
	MaxExperiments int `yaml:"maxExperiments"`
	// MaxPercent bounds how many percent of the node's processes, without the kernel's own, are in targets at once.
	MaxPercent float64 `yaml:"maxPercent"`
	// PerDay bounds the time of a day during which any fault is on.
	PerDay time.Duration `yaml:"perDay"`
}

// check names a limit that makes no sense.
func (l Limits) check() error {
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"maxDuration", l.MaxDuration}, {"perDay", l.PerDay}} {
		if d.value <= 0 || d.value > wholeDay {
			return fmt.Errorf("limits.%s: %s is out of range; it must be in 1ns..24h", d.field, d.value)
		}
	}
	for _, n := range []struct {
		field string
		value int
	}{{"maxFaults", l.MaxFaults}, {"maxTargets", l.MaxTargets}, {"maxExperiments", l.MaxExperiments}} {
		if n.value < 1 || n.value > 1000 {
			return fmt.Errorf("limits.%s: %d is out of range; it must be in 1..1000", n.field, n.value)
		}
	}
	if !(l.MaxPercent > 0 && l.MaxPercent <= wholeNode) {
		return fmt.Errorf("limits.maxPercent: %v is out of range; it must be in (0,100]", l.MaxPercent)
	}
	return nil
}

// Who names users and groups by number.
type Who struct {
	UIDs []uint32 `yaml:"uids"`
	GIDs []uint32 `yaml:"gids"`
}

// wholeDay is the longest that limits may be.
const wholeDay = 24 * time.Hour

// wholeNode is all of its processes, in percent.
const wholeNode = 100

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	return Config{Limits: Limits{MaxDuration: time.Hour, MaxFaults: 100, MaxTargets: 100, MaxExperiments: 10, MaxPercent: wholeNode, PerDay: wholeDay}}
}

// ReadConfig reads and checks a file. An empty path gives the default.
func ReadConfig(path string) (Config, error) {
	c := DefaultConfig()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	if err := c.parse(b); err != nil {
		return c, fmt.Errorf("read the configuration %s: %w", path, err)
	}
	if err := c.lock(); err != nil {
		return c, fmt.Errorf("the configuration %s keeps faultd from running: %w", path, err)
	}
	return c, nil
}

func (c *Config) parse(b []byte) error {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(document.Content) > 0 {
		if err := checkShape(document.Content[0], reflect.TypeOf(*c), ""); err != nil {
			return err
		}
		if err := document.Decode(c); err != nil {
			return err
		}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one document, of which only the first would hold; take out the line ---")
	}
	if err := c.Limits.check(); err != nil {
		return err
	}
	if err := c.Allow.check(); err != nil {
		return fmt.Errorf("allow.%w", err)
	}
	if err := checkNamespaces("protected.namespaces", c.Protected.Namespaces); err != nil {
		return err
	}
	if _, err := c.apiServers(); err != nil {
		return err
	}
	if err := c.Runtimes.Validate(); err != nil {
		return fmt.Errorf("runtimes: %w", err)
	}
	if err := c.protection(0).Validate(); err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	return nil
}

// apiServers are those of the configuration and of the environment that Kubernetes gives its containers.
func (c Config) apiServers() (servers []netip.AddrPort, err error) {
	for _, text := range c.Protected.APIServers {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("protected.apiServers: %q is no address with a port; write it as 10.0.0.1:6443", text)
		}
		servers = append(servers, server)
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if port == "" {
		port = "443"
	}
	if server, err := netip.ParseAddrPort(net.JoinHostPort(host, port)); err == nil {
		servers = append(servers, server)
	}
	return servers, nil
}

func (c Config) protection(caller int) cgroup.Protection {
	p := cgroup.Protection{
		Names:     append(cgroup.DefaultProtected(), c.Protected.Names...),
		Paths:     c.Protected.Cgroups,
		AllowRoot: c.Protected.AllowRoot,
	}
	if caller > 0 {
		p.Callers = []int{caller}
	}
	return p
}
