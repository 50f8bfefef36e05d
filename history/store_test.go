package history

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// writerCommand makes this binary one that writes runs into a history until it is killed.
const writerCommand = "write-history"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == writerCommand {
		fmt.Fprintln(os.Stderr, writeRuns(Open(os.Args[2]), os.Args[3]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeRuns tells of each step that is over.
func writeRuns(s Store, prefix string) error {
	for i := 0; ; i++ {
		r := run(fmt.Sprintf("%s-%06d", prefix, i), time.Unix(int64(i), 0))
		if err := s.Begin(r, []byte("document")); err != nil {
			return err
		}
		fmt.Println("begun", r.ID)
		if err := s.Note(r.ID, Event{time.Now(), "one"}, Event{time.Now(), "two"}); err != nil {
			return err
		}
		r.Verdict, r.End = "confirmed", time.Now()
		if err := s.End(r, map[string][]byte{"report.md": []byte(strings.Repeat("x", 10000))}); err != nil {
			return err
		}
		fmt.Println("ended", r.ID)
	}
}

func run(id string, begin time.Time) Run {
	return Run{ID: id, Experiment: "shop", Begin: begin, By: Self(), Faults: []Fault{{"gone", "connect", 7}, {"slow", "syscall", 5}}}
}

func TestRunFromBeginToEnd(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "state", FileName))
	if list, err := s.Runs(""); list != nil || err != nil {
		t.Errorf("no file has %v, %v", list, err)
	}
	r := run("20261126-1", time.Unix(1, 0).UTC())
	if err := s.Begin(r, []byte("spec:")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Note(r.ID, Event{Text: "a"}, Event{Text: "b"}), s.Note(r.ID, Event{Text: "c"})); err != nil {
		t.Fatal(err)
	}
	document, happened, err := s.Document(r.ID)
	if string(document) != "spec:" || len(happened) != 3 || happened[2].Text != "c" || err != nil {
		t.Errorf("the document is %q, %v, %v", document, happened, err)
	}
	if found, err := s.Find("2026"); err != nil || found.Verdict != "" || found.By.Gone() || found.Injected() != 12 {
		t.Errorf("found %+v, %v", found, err)
	}
	r.Verdict = "refuted"
	if err := s.End(r, map[string][]byte{"journal.json": []byte("{}"), "report.md": []byte("# it")}); err != nil {
		t.Fatal(err)
	}
	files, err := s.Files(r.ID)
	if len(files) != 2 || string(files["report.md"]) != "# it" || err != nil {
		t.Errorf("the files are %q, %v", files, err)
	}
	if _, happened, err := s.Document(r.ID); len(happened) > 0 || err != nil {
		t.Errorf("it still has %v, %v", happened, err)
	}
	if _, err := s.Find("2027"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Begin(run("20261126-2", time.Unix(2, 0)), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("2026"); err == nil || !strings.Contains(err.Error(), "2 runs begin so, from 20261126-1 to 20261126-2") {
		t.Error(err)
	}
	if info, err := os.Stat(s.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

// TestFiveHundredRuns: they are there, in order, and go by count and by age; one that is under way stays.
func TestFiveHundredRuns(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), FileName))
	for i := range 500 {
		r := run(fmt.Sprintf("%05d", i), time.Unix(int64(i), 0))
		if err := s.Begin(r, []byte("document")); err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			continue // it is under way
		}
		r.Verdict = "confirmed"
		if err := s.End(r, map[string][]byte{"report.md": fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Runs("shop")
	if err != nil || len(list) != 500 || list[499].ID != "00499" {
		t.Fatalf("there are %d, %v", len(list), err)
	}
	if gone, err := s.Prune(500, time.Time{}); gone != 0 || err != nil {
		t.Errorf("%d went, %v", gone, err)
	}
	if gone, err := s.Prune(100, time.Unix(450, 0)); gone != 449 || err != nil {
		t.Errorf("%d went, %v", gone, err)
	}
	list, err = s.Runs("")
	if err != nil || len(list) != 51 || list[0].ID != "00003" || list[1].ID != "00450" {
		t.Errorf("left are %d, %v", len(list), err)
	}
	files, err := s.Files("00449")
	document, _, documentErr := s.Document("00449")
	if len(files) > 0 || document != nil || errors.Join(err, documentErr) != nil {
		t.Errorf("of one that went there is %q, %q, %v, %v", files, document, err, documentErr)
	}
	if files, err := s.Files("00450"); string(files["report.md"]) != "450" || err != nil {
		t.Errorf("the files are %q, %v", files, err)
	}
}

// TestKilledWriters: whoever writes may be killed at any moment; what was told to be over is there, as a whole, and the next one goes on.
func TestKilledWriters(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), FileName))
	verdicts := map[string]string{}
	for i := range 10 {
		cmd := exec.Command("/proc/self/exe", writerCommand, s.path, fmt.Sprintf("%03d", i))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// From a step on that differs from round to round, after a time that nobody chose.
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			word, id, _ := strings.Cut(lines.Text(), " ")
			verdicts[id] = map[string]string{"ended": "confirmed"}[word]
			if n == i {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // its error is the signal
		list, err := s.Runs("")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]Run{}
		for _, r := range list {
			found[r.ID] = r
			if r.Verdict == "" && !r.By.Gone() {
				t.Errorf("the process of %s is said to live", r.ID)
			}
			if files, err := s.Files(r.ID); err != nil || r.Verdict != "" && len(files["report.md"]) != 10000 {
				t.Errorf("%s has the files %d, %v", r.ID, len(files), err)
			}
		}
		for id, verdict := range verdicts {
			if r, ok := found[id]; !ok || verdict != "" && r.Verdict != verdict {
				t.Errorf("round %d: %s is %+v (%v), and was told to be %q", i, id, r, ok, verdict)
			}
		}
	}
	if len(verdicts) < 10 {
		t.Errorf("only %d runs were begun", len(verdicts))
	}
}

// TestTwoWriters: they take turns.
func TestTwoWriters(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), FileName))
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for j := range 5 {
				if err := s.Begin(run(fmt.Sprint(i, "-", j), time.Unix(1, 0)), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if list, err := s.Runs(""); len(list) != 20 || err != nil {
		t.Errorf("there are %d, %v", len(list), err)
	}
}
