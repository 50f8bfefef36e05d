package main

import (
	"strings"
	"testing"
)

func TestCheckVersion(t *testing.T) {
	for text, want := range map[string]string{
		"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\n": "",
		"QEMU emulator version 11.1.0\n":                                        "",
		"QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u12)\n":         "7.2 is too old",
		"something else\n": "cannot read",
	} {
		err := checkVersion(text, amd64)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if err := checkVersion("version 7.2", arm64); !strings.Contains(err.Error(), installQEMU+"qemu-system-arm") {
		t.Errorf("error does not say what to install: %v", err)
	}
}
