package main

import (
	"slices"
	"testing"

	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

// TestLists: a flag that may be given several times takes a list with commas, too.
func TestLists(t *testing.T) {
	for _, of := range []struct {
		flags []cli.Flag
		fill  func(*cli.Context, *v1.FaultSpec) error
		args  []string
		got   func(*v1.FaultSpec) []string
		want  []string
	}{
		{fileFlags(), fileKind, []string{"--op", "read,fsync", "--op", "open"}, func(s *v1.FaultSpec) []string { return s.GetFile().GetOps() }, []string{"read", "fsync", "open"}},
		{fileFlags(), fileKind, []string{"--op", "read", "--errno", "EIO,EROFS:2"}, func(s *v1.FaultSpec) []string { return s.GetFile().GetErrnos() }, []string{"EIO", "EROFS:2"}},
		{fileFlags(), fileKind, []string{"--op", "read", "--path", "/a,b"}, func(s *v1.FaultSpec) []string { return s.GetFile().GetFilter().GetPaths() }, []string{"/a,b"}},
		{dnsFlags(), dnsKind, []string{"--answer", `TXT "a, b" c,10.0.0.1`}, func(s *v1.FaultSpec) []string { return s.GetDns().GetAnswers() }, []string{`TXT "a, b" c`, "10.0.0.1"}},
	} {
		spec := &v1.FaultSpec{}
		app := &cli.App{DisableSliceFlagSeparator: true, Flags: of.flags, Action: func(c *cli.Context) error { return of.fill(c, spec) }}
		if err := app.Run(append([]string{"inject"}, of.args...)); err != nil {
			t.Errorf("%q: %v", of.args, err)
		} else if got := of.got(spec); !slices.Equal(got, of.want) {
			t.Errorf("%q: got %q, want %q", of.args, got, of.want)
		}
	}
}
