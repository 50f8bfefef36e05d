package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"faultd/audit"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "show who did what to this node, or verify that nothing of it was changed or taken out", ArgsUsage: "show|verify",
		Action: noCommand,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "print the audit log, the oldest record first; needs no daemon", ArgsUsage: "[FILE]",
				Flags:  []cli.Flag{&cli.IntFlag{Name: "last", Usage: "only the last `N` records", DefaultText: "all"}, stateDirFlag()},
				Action: showAudit,
			},
			{
				Name: "verify", Usage: "check the chain of hashes; exit 1 if a record was changed or is missing; needs no daemon", ArgsUsage: "[FILE]",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "holds", Usage: "also check that the record with this `HASH`, which was noted earlier, is still there"},
					stateDirFlag(),
				},
				Action: verifyAudit,
			},
		},
	}
}

// auditFile is the log that is named, or this node's.
func auditFile(c *cli.Context) (string, error) {
	if c.Args().Present() {
		return oneWord(c, "FILE")
	}
	return filepath.Join(c.String("state-dir"), audit.FileName), nil
}

func showAudit(c *cli.Context) error {
	path, err := auditFile(c)
	if err != nil {
		return err
	}
	records, findings, err := audit.Read(path)
	if err != nil {
		return err
	}
	if n := c.Int("last"); n > 0 {
		records = records[max(0, len(records)-n):]
	}
	if len(findings) > 0 {
		note(c, "the log is not whole: faultd audit verify")
	}
	if isJSON(c) {
		return printJSON(c.App.Writer, append([]audit.Record{}, records...))
	}
	rows := [][]string{{"TIME", "WHO", "PROGRAM", "ACTION", "SUBJECT", "OUTCOME", "WHY"}}
	for _, r := range records {
		why := r.Why
		if r.Error != "" {
			why = r.Error
		}
		rows = append(rows, []string{
			r.Time.Format("2006-01-02T15:04:05Z"), plain(r.Who.String()), orDash(r.Who.Program), orDash(r.Action), orDash(r.Subject), orDash(r.Outcome), orDash(why),
		})
	}
	return printTable(c.App.Writer, rows)
}

// verifyJSON is what verify found.
type verifyJSON struct {
	Records int `json:"records"`
	// Hash is the last record's.
	Hash string `json:"hash"`
	// Broken is what was changed or is missing, Told what a crash left.
	Broken []string `json:"broken"`
	Told   []string `json:"told"`
}

func verifyAudit(c *cli.Context) error {
	path, err := auditFile(c)
	if err != nil {
		return err
	}
	records, findings, err := audit.Read(path)
	if err != nil {
		return err
	}
	found := verifyJSON{Records: len(records), Broken: []string{}, Told: []string{}}
	holds := c.String("holds")
	for _, r := range records {
		found.Hash = r.Hash
		if holds == r.Hash {
			holds = ""
		}
	}
	for _, f := range findings {
		text := fmt.Sprintf("line %d: %s", f.Line, f.Text)
		if f.Broken {
			found.Broken = append(found.Broken, text)
		} else {
			found.Told = append(found.Told, text)
		}
	}
	if holds != "" {
		found.Broken = append(found.Broken, fmt.Sprintf("no record has the hash %s: the log was cut or replaced", holds))
	}
	if err := printVerified(c, path, found); err != nil {
		return err
	}
	if len(found.Broken) > 0 {
		return fmt.Errorf("the audit log %s is not what was written: %s", path, several(len(found.Broken), "finding"))
	}
	return nil
}

func printVerified(c *cli.Context, path string, found verifyJSON) error {
	if isJSON(c) {
		return printJSON(c.App.Writer, found)
	}
	for _, text := range append(found.Broken, found.Told...) {
		fmt.Fprintln(c.App.Writer, plain(text))
	}
	if len(found.Broken) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s: %s, unbroken; the last has the hash %s\n", plain(path), several(found.Records, "record"), orDash(found.Hash))
	return err
}
