package experiment

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	v1 "faultd/api/faultd/v1alpha1"
)

// tlsOptions are those of a probe. Its files are read when the probe is made ready, as a document may be checked elsewhere.
type tlsOptions struct {
	asked  *v1.Tls
	config *tls.Config
}

func (d *document) tls(field string, m *v1.Tls) tlsOptions {
	if (m.GetCert() == "") != (m.GetKey() == "") {
		d.wrong(field, "give both cert and key, or neither")
	}
	if m.GetInsecure() && (m.GetCa() != "" || m.GetServerName() != "") {
		d.wrong(field+".insecure", "true was given, and ca or serverName, which say how to check")
	}
	return tlsOptions{asked: m}
}

// ready reads the files.
func (t *tlsOptions) ready() error {
	t.config = &tls.Config{ServerName: t.asked.GetServerName(), InsecureSkipVerify: t.asked.GetInsecure(), MinVersion: tls.VersionTLS12}
	if file := t.asked.GetCa(); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("tls.ca: %w", err)
		}
		t.config.RootCAs = x509.NewCertPool()
		if !t.config.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("tls.ca: %s has no certificate in PEM", file)
		}
	}
	if t.asked.GetCert() == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(t.asked.GetCert(), t.asked.GetKey())
	if err != nil {
		return fmt.Errorf("tls.cert and tls.key: %w", err)
	}
	t.config.Certificates = []tls.Certificate{pair}
	return nil
}

// at is the configuration for a server at an address.
func (t *tlsOptions) at(address string) *tls.Config {
	config := t.config.Clone()
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	return config
}
