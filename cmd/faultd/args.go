package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves flags to where cli looks for them, so that people may write them anywhere: each behind the
// innermost command of the line that has it. What stands after "--" is left alone.
func flagsFirst(app *cli.App, args []string) []string {
	words, flags := splitArgs(app, args[1:])
	path, rest := commandPath(app, words)

	// level[i] holds the flags of path[i-1]; level 0 those of the app.
	level := make([][]string, len(path)+1)
	for _, flag := range flags {
		i := len(path)
		for i > 0 && !hasFlag(path[i-1].Flags, flag[0]) {
			i--
		}
		if i == 0 && !hasFlag(app.Flags, flag[0]) {
			if namesNoCommand(path, rest) {
				continue // it will say so, which is what is wrong
			}
			i = len(path) // nobody's: let the innermost command complain
		}
		level[i] = append(level[i], flag...)
	}
	sorted := append([]string{args[0]}, level[0]...)
	for i, command := range path {
		sorted = append(append(sorted, command.Name), level[i+1]...)
	}
	return append(sorted, rest...)
}

// namesNoCommand says whether what follows the path should be one of its commands, and is none.
func namesNoCommand(path []*cli.Command, rest []string) bool {
	return len(path) > 0 && len(path[len(path)-1].Subcommands) > 0 && len(rest) > 0 && rest[0] != "--"
}

// splitArgs tells words from flags. A flag is one or two strings: "--percent=5" or "--percent", "5".
func splitArgs(app *cli.App, args []string) (words []string, flags [][]string) {
	known := allFlags(app.Flags, app.Commands)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return append(words, args[i:]...), flags
		case len(arg) < 2 || arg[0] != '-':
			words = append(words, arg)
		case !strings.Contains(arg, "=") && takesValue(known, arg) && i+1 < len(args):
			flags = append(flags, []string{arg, args[i+1]})
			i++
		default:
			flags = append(flags, []string{arg})
		}
	}
	return words, flags
}

// commandPath follows the words down the commands as far as they go.
func commandPath(app *cli.App, words []string) (path []*cli.Command, rest []string) {
	commands := app.Commands
	for i, word := range words {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if at < 0 {
			return path, words[i:]
		}
		path = append(path, commands[at])
		commands = commands[at].Subcommands
	}
	return path, nil
}

func allFlags(flags []cli.Flag, commands []*cli.Command) []cli.Flag {
	all := slices.Clone(flags)
	for _, command := range commands {
		if command.Name == "help" {
			continue // it has no flags of its own, and cli makes it one of its own commands
		}
		all = append(all, allFlags(command.Flags, command.Subcommands)...)
	}
	return all
}

func takesValue(flags []cli.Flag, arg string) bool {
	for _, flag := range flags {
		if documented, ok := flag.(cli.DocGenerationFlag); ok && slices.Contains(flag.Names(), flagName(arg)) {
			return documented.TakesValue()
		}
	}
	return false
}

// hasFlag says whether arg is one of the flags, or asks for help, which all commands have.
func hasFlag(flags []cli.Flag, arg string) bool {
	name := flagName(arg)
	return name == "help" || name == "h" ||
		slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// flagName is "percent" for "--percent=5", "-percent" and "--percent".
func flagName(arg string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name
}

// commandName gives the words that an error starts with: "faultd inject".
func commandName(app *cli.App, args []string) string {
	words, _ := splitArgs(app, args[1:])
	path, _ := commandPath(app, words)
	if len(path) == 0 {
		return app.Name
	}
	return app.Name + " " + path[0].Name
}

// oneFlag wants exactly one of these flags.
func oneFlag(c *cli.Context, names ...string) error {
	given := 0
	for _, name := range names {
		if c.IsSet(name) {
			given++
		}
	}
	if given == 1 {
		return nil
	}
	return usageErrorf("give exactly one of --%s and --%s", strings.Join(names[:len(names)-1], ", --"), names[len(names)-1])
}

// listed are the values of a flag that may be given several times, each perhaps a list with commas. A comma between quotation
// marks is part of a value, as in the text of a TXT record.
func listed(c *cli.Context, name string) (values []string) {
	for _, value := range c.StringSlice(name) {
		quoted, from := false, 0
		for i, char := range value {
			switch {
			case char == '"':
				quoted = !quoted
			case char == ',' && !quoted:
				values = append(values, value[from:i])
				from = i + 1
			}
		}
		values = append(values, value[from:])
	}
	return values
}

// givenOnce refuses a flag of one value that is given twice: cli would take the last one, and nobody would hear of the first.
func givenOnce(app *cli.App, args []string) error {
	words, flags := splitArgs(app, args[1:])
	known := app.Flags
	if path, _ := commandPath(app, words); len(path) > 0 {
		known = slices.Concat(path[len(path)-1].Flags, known)
	}
	seen := map[string]bool{}
	for _, flag := range flags {
		i := slices.IndexFunc(known, func(f cli.Flag) bool { return slices.Contains(f.Names(), flagName(flag[0])) })
		if i < 0 {
			continue
		}
		name := known[i].Names()[0]
		if one, ok := known[i].(cli.DocGenerationSliceFlag); seen[name] && takesValue(known, flag[0]) && (!ok || !one.IsSliceFlag()) {
			return usageErrorf("--%s: given twice; it takes one value", name)
		}
		seen[name] = true
	}
	return nil
}
