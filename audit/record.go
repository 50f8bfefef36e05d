// Package audit is the log of who did what to a node, and why: a file of lines that is only ever appended to, each of which holds the hash
// of the one before, so that a line that was changed or taken out shows. It knows nothing of faults.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Record is one line of the log.
type Record struct {
	// Seq counts from 1.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Action is what was asked for, or happened: "inject", "kill", "end".
	Action string `json:"action"`
	Who    Who    `json:"who"`
	// Subject is the fault or the run that it was about, by id.
	Subject string `json:"subject,omitempty"`
	// What are the particulars, such as the fault that was asked for.
	What json.RawMessage `json:"what,omitempty"`
	// Why is the reason that was given.
	Why string `json:"why,omitempty"`
	// Outcome is "begun", "done", "refused", or what the action came to.
	Outcome string `json:"outcome"`
	// Error says why it was refused, or did not work.
	Error string `json:"error,omitempty"`
	// Prev is the hash of the record before; empty for the first.
	Prev string `json:"prev"`
	// Hash is the SHA-256 of the line without this field.
	Hash string `json:"hash,omitempty"`
}

const (
	// mostText bounds each text of a record, mostWhat the particulars, and mostRecord a line; all in bytes.
	mostText   = 1 << 10
	mostWhat   = 8 << 10
	mostRecord = 64 << 10
	// hashField is how every line ends, with hashLength digits between these two.
	hashField  = `,"hash":"`
	hashEnd    = `"}`
	hashLength = 2 * sha256.Size
)

// errNoRecord says that a line is no record.
var errNoRecord = errors.New("it is no record")

// seal makes a line, with its newline, of a record that follows the one before.
func (r Record) seal(before Record) (Record, []byte, error) {
	r.Seq, r.Prev, r.Hash = before.Seq+1, before.Hash, ""
	r.Time = r.Time.Round(0).UTC()
	r.Why, r.Error, r.Outcome = cut(r.Why), cut(r.Error), cut(r.Outcome)
	if len(r.What) > mostWhat {
		r.What = json.RawMessage(fmt.Sprintf(`{"bytes":%d,"sha256":"%x"}`, len(r.What), sha256.Sum256(r.What)))
	}
	body, err := json.Marshal(r)
	if err != nil {
		return r, nil, fmt.Errorf("encode an audit record: %w", err)
	}
	r.Hash = hashOf(body)
	line := append(bytes.TrimSuffix(body, []byte("}")), hashField+r.Hash+hashEnd+"\n"...)
	if len(line) > mostRecord {
		return r, nil, fmt.Errorf("encode an audit record: it has %d bytes, at most %d are possible", len(line), mostRecord)
	}
	return r, line, nil
}

// cut shortens a text that a client chose.
func cut(text string) string {
	if len(text) <= mostText {
		return text
	}
	return text[:mostText] + "…"
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// parse reads a line, without its newline. An error that is not errNoRecord says that the line was a record and was changed.
func parse(line []byte) (r Record, err error) {
	tail := len(hashField) + hashLength + len(hashEnd)
	if len(line) < tail || !bytes.HasPrefix(line[len(line)-tail:], []byte(hashField)) || json.Unmarshal(line, &r) != nil {
		return r, errNoRecord
	}
	if body := append(bytes.Clone(line[:len(line)-tail]), '}'); hashOf(body) != r.Hash {
		return r, fmt.Errorf("record %d was changed: its hash does not fit", r.Seq)
	}
	return r, nil
}
