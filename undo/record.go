package undo

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// A record is: magic, length and CRC-32C of the payload (little endian), then the payload as JSON. The magic lets a
// reader find the next record after a torn one.
const (
	headerSize = 12
	maxPayload = 1 << 20
)

var recordMagic = []byte{0xfa, 'J', 'n', 0x01}

// record begins an entry, or strikes one out.
type record struct {
	Begin *Entry `json:"begin,omitempty"`
	Done  string `json:"done,omitempty"`
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (r record) encode() ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a journal record: %w", err)
	}
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("encode a journal record: %d bytes, at most %d are possible", len(payload), maxPayload)
	}
	b := bytes.Clone(recordMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc(payload))
	return append(b, payload...), nil
}

// CorruptError says that bytes of the journal are no record. What could be read was.
type CorruptError struct{ Offset int }

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read the journal: no record at byte %d; `faultd check --residue` looks for what it may have named", e.Offset)
}

// decode gives the records of a journal. A torn last record is passed over: its change was never made, as a record is
// written whole before the change. Anything else that is no record is reported beside what could be read.
func decode(b []byte) (records []record, err error) {
	for at := 0; at < len(b); {
		r, size := decodeOne(b[at:])
		if size > 0 {
			records = append(records, r)
			at += size
			continue
		}
		next := bytes.Index(b[at+1:], recordMagic)
		if next < 0 {
			return records, err
		}
		if err == nil {
			err = &CorruptError{at}
		}
		at += 1 + next
	}
	return records, err
}

// decodeOne reads the record at the start of b; size 0: there is none.
func decodeOne(b []byte) (r record, size int) {
	if len(b) < headerSize || !bytes.HasPrefix(b, recordMagic) {
		return r, 0
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxPayload || int(length) > len(b)-headerSize {
		return r, 0
	}
	payload := b[headerSize : headerSize+int(length)]
	if crc(payload) != binary.LittleEndian.Uint32(b[8:]) || json.Unmarshal(payload, &r) != nil {
		return record{}, 0
	}
	return r, headerSize + int(length)
}
