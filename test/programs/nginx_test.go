package programs

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// web is an nginx that serves two files.
type web struct {
	*server
	dir, port string
}

// page is large enough that nginx does not send it with the header.
var page = strings.Repeat("0123456789abcdef", 1<<14)

func (n *node) web(t *testing.T, where cgroup.Target, sendfile string) web {
	t.Helper()
	w := web{dir: t.TempDir(), port: freePort(t)}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`user root; worker_processes 1; daemon off; pid %[1]s/pid; error_log %[1]s/errors;
events {}
http {
	access_log off; sendfile %[3]s; client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	server { listen 127.0.0.1:%[2]s; root %[1]s; location = /direct { directio 512; output_buffers 1 256k; } location = /packed { gzip on; gzip_types *; gzip_comp_level 9; } }
}
`, w.dir, w.port, sendfile)
	if err := os.WriteFile(w.file("conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.server = n.serve(t, where, program(t, "nginx"), "-e", w.file("errors"), "-c", w.file("conf"))
	w.add("page")
	t.Cleanup(w.quit)
	until(t, "nginx serves", func() bool { return w.get("page") == served })
	return w
}

func (w web) file(name string) string { return filepath.Join(w.dir, name) }

// add adds a file to those that it serves.
func (w web) add(name string) {
	w.t.Helper()
	if err := os.WriteFile(w.file(name), []byte(page), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// quit ends it with its workers.
func (w web) quit() {
	_ = w.cmd.Process.Signal(os.Interrupt)
	<-w.gone
}

// served is how a client sees a page that comes whole.
const served = "200, whole"

// get says how a client sees a page.
func (w web) get(name string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://127.0.0.1:" + w.port + "/" + name)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Sprintf("%d, then %v after %d bytes of %d", response.StatusCode, err, len(body), response.ContentLength)
	case string(body) == page:
		return served
	}
	return fmt.Sprint(response.StatusCode)
}

// errors are what it wrote into its error log.
func (w web) errors() string {
	text, err := os.ReadFile(w.file("errors"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// nginxOpenFails: a file that cannot be opened is an error page, and other files are served.
func nginxOpenFails(t *testing.T, n *node) {
	target, sibling := n.web(t, n.target, "on"), n.web(t, n.spared, "on")
	for _, test := range []struct{ errno, client, log string }{
		{"EACCES", "403", "(13: Permission denied)"},
		{"EMFILE", "500", "(24: Too many open files)"},
		{"ENOENT", "404", "(2: No such file or directory)"},
		{"EIO", "500", "(5: Input/output error)"},
	} {
		file := test.errno // each fault is about a file of its own, so that they can all be there at once
		target.add(file)
		sibling.add(file)
		f := n.hurtFiles(t, &v1.File{Ops: []string{"open"}, Errnos: []string{test.errno}, Filter: &v1.Filter{Paths: []string{target.file(file)}}})
		expect(t, test.errno+" at the target", target.get(file), test.client)
		expect(t, "another file", target.get("page"), served)
		expect(t, "the sibling", sibling.get(file), served)
		expectText(t, "the log", target.errors(), fmt.Sprintf("open() %q failed %s", target.file(file), test.log))
		defer func() {
			expect(t, "injected", f.ends("injected").GetInjected(), 1)
			expect(t, "afterwards", target.get(file), served)
		}()
	}
}

// nginxReadFails: with sendfile the header is out when reading fails, without it nothing is.
func nginxReadFails(t *testing.T, n *node) {
	for sendfile, test := range map[string]struct{ call, client, log string }{
		"on":  {"sendfile", "200, then unexpected EOF after 0 bytes of 262144", "sendfile() failed (5: Input/output error) while sending response to client"},
		"off": {"pread64", "EOF", "failed (5: Input/output error) while sending response to client"},
	} {
		t.Run("sendfile "+sendfile, func(t *testing.T) {
			target, sibling := n.web(t, n.target, sendfile), n.web(t, n.spared, sendfile)
			f := n.hurt(t, &v1.Syscall{Calls: []string{test.call}, Errnos: []string{"EIO"}})
			expectText(t, "the client", target.get("page"), test.client)
			expect(t, "the sibling", sibling.get("page"), served)
			expectText(t, "the log", target.errors(), test.log)
			expect(t, "injected", f.ends("injected").GetInjected(), 1)
			expect(t, "afterwards", target.get("page"), served)
		})
	}
}

// nginxSqueezed: an nginx that may have no more processes has no workers after it has read its configuration anew; its sibling has, and afterwards
// both have.
func nginxSqueezed(t *testing.T, n *node) {
	n.needsControllers(t)
	target, sibling := n.web(t, n.target, "on"), n.web(t, n.spared, "on")
	none := uint32(0)
	const refused = "fork() failed while spawning \"worker process\" (11: Resource temporarily unavailable)"
	n.squeeze(t, "pids.max", &v1.FaultSpec{Kind: &v1.FaultSpec_Pids{Pids: &v1.Pids{More: &none}}}, func() {
		target.reload()
		until(t, "no worker is started", func() bool { return strings.Contains(target.errors(), refused) })
		sibling.reload()
		expect(t, "the sibling", sibling.get("page"), served)
	})
	target.reload()
	expect(t, "afterwards", target.get("page"), served)
	if strings.Contains(sibling.errors(), "fork() failed") {
		t.Error("the sibling could not fork")
	}
}

// reload has it read its configuration, and start new workers.
func (w web) reload() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
}
