package cgroup

import (
	"strings"
	"testing"
)

func TestParseSelector(t *testing.T) {
	deep := "/" + strings.Repeat("a/", 2000)
	for _, test := range []struct{ in, want, err string }{
		{in: "cgroup:/", want: "cgroup:/"},
		{in: "cgroup:/system.slice/redis.service", want: "cgroup:/system.slice/redis.service"},
		{in: "cgroup:system.slice//./redis.service/", want: "cgroup:/system.slice/redis.service"},
		{in: "cgroup:/a b:c", want: "cgroup:/a b:c"},
		{in: "cgroup:/a..b/...", want: "cgroup:/a..b/..."},
		{in: "cgroup:/sys/fs/cgroup/a", want: "cgroup:/sys/fs/cgroup/a"},
		{in: "cgroup:" + deep, want: "cgroup:" + strings.TrimSuffix(deep, "/")},
		{in: "pid:1", want: "pid:1"},
		{in: "pid:0042", want: "pid:42"},
		{in: "pid:4194303", want: "pid:4194303"},
		{in: "unit:redis", want: "unit:redis.service"},
		{in: "unit:redis.service", want: "unit:redis.service"},
		{in: "unit:a.b", want: "unit:a.b.service"},
		{in: "unit:getty@tty1", want: "unit:getty@tty1.service"},
		{in: `unit:a\x2db.mount`, want: `unit:a\x2db.mount`},
		{in: "unit:-.slice", want: "unit:-.slice"},

		{in: "container:web", want: "container:web"},
		{in: "container:0d6f5a", want: "container:0d6f5a"},
		{in: "container:~^web-[0-9]+$", want: "container:~^web-[0-9]+$"},
		{in: "pod:shop/web-0", want: "pod:shop/web-0"},
		{in: "pod:shop/web-0#proxy,app,app", want: "pod:shop/web-0#app,proxy"},
		{in: "pods:shop", want: "pods:shop"},
		{in: "pods:shop?app=web", want: "pods:shop?app=web"},
		{in: "pods:shop?app == web , tier!=db,zone in (a, b),x/y notin (c),canary,! legacy#app", want: "pods:shop?app=web,tier!=db,zone in (a,b),x/y notin (c),canary,!legacy#app"},
		{in: "pods:shop?app=", want: "pods:shop?app="},

		{in: "", err: `selector "": write cgroup:PATH, pid:N, unit:NAME, container:NAME, pod:NAMESPACE/NAME or pods:NAMESPACE?LABELS`},
		{in: "container:", err: "empty name of a container"},
		{in: "container:a b", err: `"a b" is no name of a container`},
		{in: "container:~", err: "no regular expression"},
		{in: "container:~[", err: "no regular expression (RE2)"},
		{in: "pod:", err: "write pod:NAMESPACE/NAME"},
		{in: "pod:web-0", err: "write pod:NAMESPACE/NAME"},
		{in: "pod:/web-0", err: "empty name of a namespace"},
		{in: "pod:shop/", err: "empty name of a pod"},
		{in: "pod:shop/web/0", err: `"web/0" is no name of a pod`},
		{in: "pod:shop/web-0#", err: "empty name of a container"},
		{in: "pod:shop/web-0#a,,b", err: "empty name of a container"},
		{in: "pods:", err: "write pods:NAMESPACE"},
		{in: "pods:?app=web", err: "empty name of a namespace"},
		{in: "pods:*", err: `"*" is no name of a namespace`},
		{in: "pods:shop?", err: `"" is no condition on a label`},
		{in: "pods:shop?app=web,", err: `"" is no condition on a label`},
		{in: "pods:shop?app=a b", err: `"app=a b" is no condition on a label`},
		{in: "pods:shop?app in a", err: "no condition on a label"},
		{in: "pods:shop?app in (a", err: "no condition on a label"},
		{in: "pods:shop?=web", err: "no condition on a label"},
		{in: "/system.slice", err: "write cgroup:PATH"},
		{in: "Pod:shop/web", err: `"Pod" is unknown`},
		{in: "Cgroup:/a", err: `"Cgroup" is unknown`},
		{in: ":", err: `"" is unknown`},
		{in: "cgroup:", err: "empty path"},
		{in: "cgroup:/a/../b", err: `contains ".."`},
		{in: "cgroup:..", err: `contains ".."`},
		{in: "cgroup:/a\x00b", err: "control character"},
		{in: "cgroup:/a\nb", err: "control character"},
		{in: "cgroup:/a\x7f", err: "control character"},
		{in: "cgroup:/a\xff", err: "not valid UTF-8"},
		{in: "cgroup:/" + strings.Repeat("x", 256), err: "at most 255"},
		{in: "cgroup:" + strings.Repeat("/x", 2048), err: "at most 4095"},
		{in: "pid:", err: "1..4194303"},
		{in: "pid:0", err: "1..4194303"},
		{in: "pid:-1", err: "1..4194303"},
		{in: "pid:+1", err: "1..4194303"},
		{in: "pid:1e3", err: "1..4194303"},
		{in: "pid:4194304", err: "1..4194303"},
		{in: "pid:99999999999999999999", err: "1..4194303"},
		{in: "unit:", err: "empty unit name"},
		{in: "unit:.service", err: "empty unit name"},
		{in: "unit:a/b", err: "systemd-escape"},
		{in: "unit:a b", err: "systemd-escape"},
		{in: "unit:größe", err: "systemd-escape"},
		{in: "unit:a\x00", err: "systemd-escape"},
		{in: "unit:getty@", err: "name an instance, such as getty@1.service"},
		{in: "unit:@x", err: `does not begin with "@"`},
		{in: "unit:backup.timer", err: "a .timer unit has no cgroup"},
		{in: "unit:" + strings.Repeat("u", 248), err: "at most 255"},
	} {
		got, err := ParseSelector(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%.60q: error %v, want %q", test.in, err, test.err)
			}
			if got != (Selector{}) || got.String() != "" {
				t.Errorf("%.60q: gives %v beside an error", test.in, got)
			}
			continue
		}
		if err != nil || got.String() != test.want {
			t.Errorf("%.60q: %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	for _, s := range []string{"cgroup:/a/b", "cgroup:a//.", "pid:007", "unit:x", "unit:_x.slice", "unit:-.slice", ":", "cgroup:/\x00", "unit:.service",
		"container:web", "container:~a|b", "pod:a/b#d,c", "pods:a?b=c,d in (e,f),!g#h", "pods:a?b\nc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := ParseSelector(in)
		if err != nil {
			return
		}
		twice, err := ParseSelector(once.String())
		if err != nil || twice != once {
			t.Errorf("%q gives %q, which gives %q, %v", in, once, twice, err)
		}
		if once.scheme == "cgroup" && (once.value[0] != '/' || strings.Contains(once.value+"/", "/../")) {
			t.Errorf("%q gives the path %q", in, once.value)
		}
	})
}
