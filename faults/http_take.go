package faults

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// takeBody reads what the client sends, for nobody: many read an answer only when they have sent all, and take a connection or a stream
// that is closed before for a broken one. With HTTP/1 it goes on while the answer is given, until the result has been called. With HTTP/2
// the end of an answer is that of its stream, so the body comes first, if its length was told: others may have no end. A rule that
// is over has nobody wait.
func takeBody(w http.ResponseWriter, r *http.Request, over <-chan struct{}) (wait func()) {
	control := http.NewResponseController(w)
	switch {
	case r.Header.Get("Expect") != "": // it waits to be told to send
	case r.ProtoMajor == 1:
		_ = control.EnableFullDuplex()
		var taking sync.WaitGroup
		taking.Go(func() { takeAll(r.Body) })
		return taking.Wait
	case r.ContentLength > 0:
		taken := make(chan struct{})
		var watching sync.WaitGroup
		watching.Go(func() {
			select {
			case <-taken:
			case <-over:
				_ = control.SetReadDeadline(time.Unix(1, 0))
			}
		})
		takeAll(r.Body)
		close(taken)
		watching.Wait()
	}
	return func() {}
}

func takeAll(body io.Reader) { _, _ = io.Copy(io.Discard, body) }
