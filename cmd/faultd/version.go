package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{Name: "version", Usage: "print the version of this program", Action: printVersion}
}

func printVersion(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	v := buildVersion()
	if isJSON(c) {
		return printJSON(c.App.Writer, v)
	}
	_, err := fmt.Fprintf(c.App.Writer, "faultd %s %s %s %s\n", v.Version, orDash(v.Revision), v.Go, v.Platform)
	return err
}

// buildVersion reads what the linker wrote down.
func buildVersion() versionJSON {
	v := versionJSON{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Revision = setting.Value
		}
	}
	return v
}
