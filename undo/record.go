package undo

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
)

// A record is a header and a payload. The header is the same in all versions: magic (3 bytes), version (1), length of the
// payload (4), CRC-32C of the payload (4), CRC-32C of the header before it (4); numbers are little endian. The payload
// is JSON, which is UTF-8, where the first byte of the magic never occurs: so a reader finds the next record after a
// damaged one, and the checked length tells a record that was cut short from one that was damaged later.
const (
	recordMagic = "\xfaJn"
	headerSize  = 16
	maxPayload  = 1 << 16
)

// record begins an entry, or strikes one out.
type record struct {
	Begin *Entry `json:"begin,omitempty"`
	Done  string `json:"done,omitempty"`
}

// CorruptError says that bytes of the journal are no record, and were not left by a write that was cut short. What could
// be read was; what these bytes named is unknown.
type CorruptError struct {
	Offset, Length int // in bytes
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read the journal: %d bytes at offset %d are damaged; what they named may be left on this node", e.Length, e.Offset)
}

// VersionError says that the journal holds records of a newer version.
type VersionError struct {
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("read the journal: it holds records of version %d, this build knows version %d; undo them with the build that wrote them", e.Version, Version)
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (r record) encode() ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a journal record: %w", err)
	}
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("encode a journal record: it has %d bytes, at most %d are possible", len(payload), maxPayload)
	}
	// JSON replaces what is not UTF-8, and a path may be anything: never write down what would read as another path.
	if back, ok := parsePayload(payload); !ok || !reflect.DeepEqual(back, r) {
		return nil, errors.New("encode a journal record: a text in it is not UTF-8")
	}
	return frame(Version, payload), nil
}

func frame(version byte, payload []byte) []byte {
	b := append([]byte(recordMagic), version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc(payload))
	b = binary.LittleEndian.AppendUint32(b, crc(b))
	return append(b, payload...)
}

// header is a checked one.
type header struct {
	version  int
	length   int
	checksum uint32
}

func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(recordMagic)) || crc(b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
		return h, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	h = header{version: int(b[3]), length: int(length), checksum: binary.LittleEndian.Uint32(b[8:])}
	return h, length <= maxPayload && h.version > 0
}

// parsePayload is strict: a field this build does not know could be the one that matters.
func parsePayload(b []byte) (r record, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if d.Decode(&r) != nil || d.InputOffset() != int64(len(b)) {
		return record{}, false
	}
	return r, (r.Begin == nil) != (r.Done == "")
}

// decode gives the records of a journal. A record that was cut short, or whose end never reached the disk, is passed over
// without a word: it was never acknowledged, so its change was never made, or it struck out an entry, which is then replayed once
// more. Anything else that is no record is an error beside what could be read.
func decode(b []byte) ([]record, error) {
	var records []record
	var errs []error
	newest := Version
	for at := 0; at < len(b); {
		if r, version, size := decodeOne(b[at:]); size > 0 {
			newest = max(newest, version)
			if version <= Version {
				records = append(records, r)
			}
			at += size
			continue
		}
		next := nextHeader(b, at+1)
		if !cutShort(b[at:next]) && !unwritten(b[at:next], at) {
			errs = append(errs, &CorruptError{Offset: at, Length: next - at})
		}
		at = next
	}
	if newest > Version {
		errs = append(errs, &VersionError{newest})
	}
	return records, errors.Join(errs...)
}

// decodeOne reads the record at the start of b; size 0: there is none. One of a newer version is stepped over.
func decodeOne(b []byte) (r record, version, size int) {
	h, ok := parseHeader(b)
	if !ok || h.length > len(b)-headerSize {
		return r, 0, 0
	}
	payload := b[headerSize : headerSize+h.length]
	if crc(payload) != h.checksum {
		return r, 0, 0
	}
	if h.version <= Version {
		if r, ok = parsePayload(payload); !ok {
			return r, 0, 0
		}
	}
	return r, h.version, headerSize + h.length
}

// nextHeader finds the next header from an offset on; the end if there is none.
func nextHeader(b []byte, at int) int {
	for {
		i := bytes.Index(b[at:], []byte(recordMagic))
		if i < 0 {
			return len(b)
		}
		at += i
		if _, ok := parseHeader(b[at:]); ok {
			return at
		}
		// The start of a header that ends with the journal, too, begins something new.
		if len(b)-at < headerSize {
			return at
		}
		at++
	}
}

// cutShort: b is the beginning of a record, and no more.
func cutShort(b []byte) bool {
	if len(b) < headerSize {
		n := min(len(b), len(recordMagic))
		return string(b[:n]) == recordMagic[:n]
	}
	h, ok := parseHeader(b)
	return ok && len(b) < headerSize+h.length
}

// sector is what a disk writes as a whole, in bytes.
const sector = 512

// unwritten: b, at an offset of the journal, is what a power cut leaves of records that were not waited for: ext4 makes the
// file longer before it writes the bytes of a block that it had already (ext4_da_write_end; data=ordered is about new
// blocks), and XFS may, so that zeros are read. They begin where a record did, or with a sector that was written later than
// the one before it. Zeros elsewhere are damage.
func unwritten(b []byte, offset int) bool {
	written := len(bytes.TrimRight(b, "\x00"))
	if written == 0 {
		return true
	}
	// The bytes before may end in zeros of their own, so the border is looked for from the last that is none.
	border := (offset+written+sector-1)/sector*sector - offset
	return border < len(b) && cutShort(b[:border])
}
