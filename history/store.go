package history

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// FileName is the store's name in its directory.
const FileName = "history.db"

// patience is how long another process may hold the file; each holds it for one change.
const patience = 5 * time.Second

// Of every run there is a value in runs; in documents and pages there is a bucket for each.
var (
	runs      = []byte("runs")
	documents = []byte("documents")
	events    = []byte("events")
	pages     = []byte("pages")
)

// ErrNotFound says that there is no such run.
var ErrNotFound = errors.New("no such run")

// Store is a history. It holds the file only while it reads or changes something, so several processes may use it.
type Store struct{ path string }

// Open names a history. It need not be there.
func Open(path string) Store { return Store{path} }

// change opens the file for one change, which is on the disk as a whole or not at all.
func (s Store) change(do func(*bbolt.Tx) error) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("make the directory of the history: %w", err)
	}
	return s.with(false, func(db *bbolt.DB) error { return db.Update(do) })
}

// look opens the file to read. Without a file there is nothing to be read.
func (s Store) look(do func(*bbolt.Tx) error) error {
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.with(true, func(db *bbolt.DB) error { return db.View(do) })
}

func (s Store) with(readOnly bool, do func(*bbolt.DB) error) error {
	db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: patience, ReadOnly: readOnly})
	if errors.Is(err, berrors.ErrTimeout) {
		err = fmt.Errorf("another process has held it for %s", patience)
	}
	if err != nil {
		return fmt.Errorf("open the history %s: %w", s.path, err)
	}
	return errors.Join(do(db), db.Close())
}

// Begin writes a run down that is about to begin, with its document.
func (s Store) Begin(r Run, document []byte) error {
	return s.change(func(tx *bbolt.Tx) error {
		return errors.Join(put(tx, runs, []byte(r.ID), r), putBytes(tx, documents, []byte(r.ID), document))
	})
}

// Note adds what happened to a run.
func (s Store) Note(id string, happened ...Event) error {
	return s.change(func(tx *bbolt.Tx) error {
		parent, err := tx.CreateBucketIfNotExists(events)
		if err != nil {
			return err
		}
		b, err := parent.CreateBucketIfNotExists([]byte(id))
		if err != nil {
			return err
		}
		for _, e := range happened {
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			next, err := b.NextSequence()
			if err != nil {
				return err
			}
			if err := b.Put(binary.BigEndian.AppendUint64(nil, next), text); err != nil {
				return err
			}
		}
		return nil
	})
}

// End writes down what a run came to, with the files of its report.
func (s Store) End(r Run, files map[string][]byte) error {
	return s.change(func(tx *bbolt.Tx) error {
		if err := put(tx, runs, []byte(r.ID), r); err != nil {
			return err
		}
		parent, err := tx.CreateBucketIfNotExists(pages)
		if err != nil {
			return err
		}
		b, err := parent.CreateBucketIfNotExists([]byte(r.ID))
		if err != nil {
			return err
		}
		for name, text := range files {
			packed, err := pack(text)
			if err != nil {
				return err
			}
			if err := b.Put([]byte(name), packed); err != nil {
				return err
			}
		}
		// The report has the events.
		if parent := tx.Bucket(events); parent != nil && parent.Bucket([]byte(r.ID)) != nil {
			return parent.DeleteBucket([]byte(r.ID))
		}
		return nil
	})
}

// Runs gives all runs, the oldest first; of one experiment, unless its name is empty.
func (s Store) Runs(experiment string) (list []Run, err error) {
	err = s.look(func(tx *bbolt.Tx) error {
		b := tx.Bucket(runs)
		if b == nil {
			return nil
		}
		return b.ForEach(func(id, text []byte) error {
			var r Run
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Errorf("read run %s: %w", id, err)
			}
			if experiment == "" || r.Experiment == experiment {
				list = append(list, r)
			}
			return nil
		})
	})
	return list, err
}

// Find gives the run with an id, or the only one whose id begins so.
func (s Store) Find(id string) (Run, error) {
	list, err := s.Runs("")
	if err != nil {
		return Run{}, err
	}
	var found []Run
	for _, r := range list {
		if r.ID == id {
			return r, nil
		}
		if id != "" && strings.HasPrefix(r.ID, id) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return Run{}, fmt.Errorf("run %q: %w; `faultd history` shows what there is", id, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return Run{}, fmt.Errorf("run %q: %d runs begin so, from %s to %s; write more of it", id, len(found), found[0].ID, found[len(found)-1].ID)
}

// Document gives what a run was asked to do, and what happened so far if it has no end.
func (s Store) Document(id string) (document []byte, happened []Event, err error) {
	err = s.look(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(documents); b != nil {
			document = bytes.Clone(b.Get([]byte(id)))
		}
		b := tx.Bucket(events)
		if b == nil || b.Bucket([]byte(id)) == nil {
			return nil
		}
		return b.Bucket([]byte(id)).ForEach(func(_, text []byte) error {
			var e Event
			err := json.Unmarshal(text, &e)
			happened = append(happened, e)
			return err
		})
	})
	return document, happened, err
}

// Files gives the report of a run that has ended.
func (s Store) Files(id string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := s.look(func(tx *bbolt.Tx) error {
		b := tx.Bucket(pages)
		if b == nil || b.Bucket([]byte(id)) == nil {
			return nil
		}
		return b.Bucket([]byte(id)).ForEach(func(name, packed []byte) error {
			text, err := unpack(packed)
			files[string(name)] = text
			return err
		})
	})
	return files, err
}

// Prune keeps the newest runs, no more than so many, and of these the ones that began since. One that has no end and whose process lives is kept.
// It says how many went.
func (s Store) Prune(keep int, since time.Time) (gone int, err error) {
	list, err := s.Runs("")
	if err != nil {
		return 0, err
	}
	var old []Run
	for i, r := range list {
		if under := r.Verdict == "" && !r.By.Gone(); !under && (i < len(list)-keep || r.Begin.Before(since)) {
			old = append(old, r)
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	return len(old), s.change(func(tx *bbolt.Tx) error {
		for _, r := range old {
			if err := drop(tx, []byte(r.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// drop takes all of a run away.
func drop(tx *bbolt.Tx, id []byte) error {
	for _, name := range [][]byte{events, pages} {
		if b := tx.Bucket(name); b != nil && b.Bucket(id) != nil {
			if err := b.DeleteBucket(id); err != nil {
				return err
			}
		}
	}
	for _, name := range [][]byte{runs, documents} {
		if b := tx.Bucket(name); b != nil {
			if err := b.Delete(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func put(tx *bbolt.Tx, name, key []byte, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return putBytes(tx, name, key, text)
}

func putBytes(tx *bbolt.Tx, name, key, value []byte) error {
	b, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

func pack(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(text)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
