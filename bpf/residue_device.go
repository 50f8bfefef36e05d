package bpf

import (
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// eachDevice calls f for every device in the network namespaces of all threads and in the named ones.
func eachDevice(f func(handle *netlink.Handle, device netlink.Link, namespace string) error) error {
	seen := map[uint64]bool{}
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/run/netns/*", "/run/docker/netns/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("list the network namespaces: %w", err)
		}
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) != nil || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			if err := eachDeviceIn(p, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachDeviceIn does so for one namespace. One that is gone has none.
func eachDeviceIn(namespace string, f func(*netlink.Handle, netlink.Link, string) error) error {
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return nil // its process ended, or nothing is mounted there
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer handle.Close()
	devices, err := handle.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices in %s: %w", namespace, err)
	}
	for _, device := range devices {
		if err := f(handle, device, namespace); err != nil {
			return err
		}
	}
	return nil
}
