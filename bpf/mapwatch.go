package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// mapWatch tells of processes of targets that have mapped code: by exec, by dlopen.
type mapWatch struct {
	programs *ebpf.Collection
	attached link.Link
	events   *ringbuf.Reader
	done     chan struct{}

	mu          sync.Mutex
	subscribers map[*callSites]bool
}

// openMapWatch starts watching. It is shared: see Kernel.acquire.
func (k *Kernel) openMapWatch() (w *mapWatch, err error) {
	spec, err := k.object("syscallUprobe", loadSyscallUprobe, "faultd_mmap")
	if err != nil {
		return nil, err
	}
	w = &mapWatch{done: make(chan struct{}), subscribers: map[*callSites]bool{}}
	if w.programs, err = k.load(spec); err != nil {
		return nil, fmt.Errorf("load the program that follows mappings: %w", err)
	}
	if w.attached, err = link.AttachTracing(link.TracingOptions{Program: w.programs.Programs["faultd_mmap"]}); err != nil {
		w.programs.Close()
		return nil, fmt.Errorf("attach to vm_mmap_pgoff: %w", err)
	}
	if w.events, err = ringbuf.NewReader(w.programs.Maps["faultd_mapped"]); err != nil {
		err = errors.Join(fmt.Errorf("read events of mappings: %w", err), w.attached.Close())
		w.programs.Close()
		return nil, err
	}
	go w.run()
	return w, nil
}

// run tells the subscribers of each event, and to look at everything when events were lost.
func (w *mapWatch) run() {
	defer close(w.done)
	var knownLost uint64
	for {
		record, err := w.events.Read()
		if err != nil {
			return // closed
		}
		pid := 0
		if len(record.RawSample) >= 4 {
			pid = int(binary.NativeEndian.Uint32(record.RawSample))
		}
		var lost uint64
		if err := w.programs.Variables["mapped_lost"].Get(&lost); err != nil || lost != knownLost {
			knownLost, pid = lost, 0
		}
		w.mu.Lock()
		for s := range w.subscribers {
			_ = s.follow(pid) // what is not attached to is counted as missed
		}
		w.mu.Unlock()
	}
}

func (w *mapWatch) subscribe(s *callSites) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscribers[s] = true
}

func (w *mapWatch) unsubscribe(s *callSites) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subscribers, s)
}

// Close ends it.
func (w *mapWatch) Close() error {
	err := errors.Join(w.attached.Close(), w.events.Close())
	<-w.done
	w.programs.Close()
	return err
}
