package daemon_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestDelayIsChanged of faults that run, as far as their kind has one; what does not fit is refused, and changes nothing.
func TestDelayIsChanged(t *testing.T) {
	kernels.OnHost(t)
	b := startNeighbours(t)
	b.n.serveNames(b.hurt)
	b.n.serveWeb(b.hurt)
	const late = 700 * time.Millisecond
	for name, c := range map[string]struct {
		spec *v1.FaultSpec
		do   func(*worker) string
		want string
	}{
		"dns":  {resolve(b.target, &v1.Dns{Delay: "1ms"}), func(w *worker) string { return w.do("dns ask udp %s a.example.com A 30s", server4) }, realA},
		"http": {web(b.target, &v1.Http{Status: 503, Delay: "1ms"}), func(w *worker) string { return w.do("web one GET http://10.53.0.1/a -") }, "503 " + web4},
	} {
		t.Run(name, func(t *testing.T) {
			f := b.n.inject(c.spec)
			b.hurt.wants("new", "web new")
			changed := func(request *v1.UpdateRequest) (*v1.Fault, error) {
				request.Id = f.GetId()
				response, err := b.n.client.Update(t.Context(), connect.NewRequest(request))
				if err != nil {
					return nil, err
				}
				return response.Msg.GetFault(), nil
			}
			for _, request := range []*v1.UpdateRequest{{Delay: late.String()}, {Delay: (late * 3 / 2).String(), Jitter: (late / 2).String()}} {
				if _, err := changed(request); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				if got := c.do(b.hurt); got != c.want {
					t.Errorf("it got %s, want %s", got, c.want)
				}
				if took := time.Since(begun); took < late {
					t.Errorf("after %v it took %s", request, took)
				}
			}
			for problem, request := range map[string]*v1.UpdateRequest{
				"jitter":       {Jitter: "1m"},
				"distribution": {Distribution: "even"},
				"delay":        {Delay: "1h"},
				"loss":         {Loss: new(1.0)},
			} {
				if _, err := changed(request); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), problem+": ") {
					t.Errorf("%v: %v", request, err)
				}
			}
			got, err := changed(&v1.UpdateRequest{Delay: "1ms", Jitter: "1ms", Distribution: "normal"})
			if err != nil {
				t.Fatal(err)
			}
			if text := got.GetSpec().String(); !strings.Contains(text, `"normal"`) {
				t.Errorf("changed to %s", text)
			}
			if got := c.do(b.hurt); got != c.want {
				t.Errorf("it got %s, want %s", got, c.want)
			}
			if k := b.n.settled(f.GetId()); k.GetInjected() != 3 {
				t.Errorf("counted %v, want 3 injected", k)
			}
			b.n.stop(f.GetId())
		})
	}
	f := b.n.inject(refuse(b.target))
	if _, err := b.n.client.Update(t.Context(), connect.NewRequest(&v1.UpdateRequest{Id: f.GetId(), Delay: "1ms"})); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "syscall, file, dns and http") {
		t.Errorf("a delay of connect: %v", err)
	}
}
