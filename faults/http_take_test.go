package faults

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHTTPTakesBodies: with HTTP/2 the answer comes when the body has been sent, or its rule is over; one without a length is not waited for.
func TestHTTPTakesBodies(t *testing.T) {
	const size = 3 << 20
	over := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer takeBody(w, r, over)()
		if asked := r.ContentLength; asked > 0 {
			n, err := io.Copy(io.Discard, r.Body)
			if asked == size && (n > 0 || err != nil) || asked == 2 && err == nil {
				t.Errorf("of a body of %d bytes %d are left, and then %v", asked, n, err)
			}
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	server.Config.Protocols = protocols(false, true)
	server.Start()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{Protocols: protocols(false, true)}}
	send := func(body io.Reader, length int64) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPut, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("it is answered %d", response.StatusCode)
		}
	}
	send(strings.NewReader(strings.Repeat("a", size)), size)
	endless, never := io.Pipe()
	defer never.Close()
	send(endless, -1)
	body, say := io.Pipe()
	defer say.Close()
	go func() {
		_, _ = say.Write([]byte("a"))
		close(over) // and the other byte never comes
	}()
	send(body, 2)
}
