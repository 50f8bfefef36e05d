package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"faultd/cgroup"
)

// DefaultConfigFile is read if it is there and no other is named.
const DefaultConfigFile = "/etc/faultd/faultd.yaml"

// Config is a configuration file. Unknown keys are errors; what is left out has the default.
type Config struct {
	// Environment is a name shown with events and metrics, such as "staging".
	Environment string `yaml:"environment"`
	Limits      Limits `yaml:"limits"`
	Protected   struct {
		// Names of processes whose cgroups may not be targets, beside the built-in ones.
		Names []string `yaml:"names"`
		// Cgroups are paths from the root of the tree.
		Cgroups []string `yaml:"cgroups"`
		// AllowRoot allows the root cgroup as a target.
		AllowRoot bool `yaml:"allowRoot"`
		// APIServers are addresses of Kubernetes' API server, beside the one that its environment names: "10.0.0.1:6443".
		APIServers []string `yaml:"apiServers"`
	} `yaml:"protected"`
	// Access says who, beside root, may do what. Whoever can open the socket may read.
	Access struct {
		Inject Who `yaml:"inject"`
		Kill   Who `yaml:"kill"`
	} `yaml:"access"`
}

// Limits bound the blast radius.
type Limits struct {
	MaxDuration time.Duration `yaml:"maxDuration"`
	MaxFaults   int           `yaml:"maxFaults"`
}

// Who names users and groups by number.
type Who struct {
	UIDs []uint32 `yaml:"uids"`
	GIDs []uint32 `yaml:"gids"`
}

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	return Config{Limits: Limits{MaxDuration: time.Hour, MaxFaults: 100}}
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
	return c, nil
}

func (c *Config) parse(b []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if c.Limits.MaxDuration <= 0 || c.Limits.MaxDuration > 24*time.Hour {
		return fmt.Errorf("limits.maxDuration: %s is out of range; it must be in 1ns..24h", c.Limits.MaxDuration)
	}
	if c.Limits.MaxFaults < 1 || c.Limits.MaxFaults > 1000 {
		return fmt.Errorf("limits.maxFaults: %d is out of range; it must be in 1..1000", c.Limits.MaxFaults)
	}
	if _, err := c.apiServers(); err != nil {
		return err
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
