package experiment

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	text "text/template"
)

//go:embed report.html.tmpl
var htmlSource string

//go:embed report.md.tmpl
var markdownSource string

// html is the run as one page that needs nothing else.
func (r *Result) html() ([]byte, error) {
	page, err := template.New("report").Parse(htmlSource)
	if err != nil {
		return nil, fmt.Errorf("read the template of the page: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, r.view()); err != nil {
		return nil, fmt.Errorf("write the page: %w", err)
	}
	return b.Bytes(), nil
}

// markdown is the run for a runbook or a ticket.
func (r *Result) markdown() ([]byte, error) {
	page, err := text.New("report").Funcs(text.FuncMap{"cell": markdownCell, "join": strings.Join}).Parse(markdownSource)
	if err != nil {
		return nil, fmt.Errorf("read the template of the Markdown: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, r.view()); err != nil {
		return nil, fmt.Errorf("write the Markdown: %w", err)
	}
	return b.Bytes(), nil
}
