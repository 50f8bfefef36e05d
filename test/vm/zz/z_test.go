package zz
import ("testing";"os";"os/exec")
func TestA(t *testing.T) {
 b,err:=os.ReadFile("testdata/f"); t.Log(string(b),err)
 o,err:=exec.Command("uname","-r").CombinedOutput(); t.Log(string(o),err)
 for _,p:=range []string{"/sys/fs/cgroup/cgroup.procs","/sys/fs/bpf","/sys/kernel/tracing/events","/sys/kernel/btf/vmlinux"} { if _,err:=os.Stat(p); err!=nil {t.Error(err)} }
 o,err=exec.Command("/usr/bin/redis-server","--version").CombinedOutput(); t.Log(string(o),err)
}
