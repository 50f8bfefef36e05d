package bpf

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

var redirectHooks = cgroupPrograms{"redirect", HookRedirect, "redirect", loadRedirect, 0, map[string]ebpf.AttachType{
	"faultd_redirect_connect4":     ebpf.AttachCGroupInet4Connect,
	"faultd_redirect_connect6":     ebpf.AttachCGroupInet6Connect,
	"faultd_redirect_sendmsg4":     ebpf.AttachCGroupUDP4Sendmsg,
	"faultd_redirect_sendmsg6":     ebpf.AttachCGroupUDP6Sendmsg,
	"faultd_redirect_recvmsg4":     ebpf.AttachCGroupUDP4Recvmsg,
	"faultd_redirect_recvmsg6":     ebpf.AttachCGroupUDP6Recvmsg,
	"faultd_redirect_getpeername4": ebpf.AttachCgroupInet4GetPeername,
	"faultd_redirect_getpeername6": ebpf.AttachCgroupInet6GetPeername,
}}

// RedirectEnv is what a redirection needs beside the kernel.
type RedirectEnv struct {
	// Namespaces are those of the target's processes; used only during the call. Those that come later: CoverNamespaces.
	Namespaces []NetNS
	// Answer begins to serve a stand-in; closing the result ends that, and waits for it.
	Answer func(*StandIn) io.Closer
}

// InstallRedirect makes the connections and datagrams that the target sends to the rule's ports go to a stand-in, in each of the
// namespaces. The rules of one target share its stand-ins, which ask them (StandIn.Rules); harm is done and counted there. The caller closes the rule.
func (k *Kernel) InstallRedirect(t Target, r Rule, env RedirectEnv) (*Installed, error) {
	open := func(ns NetNS) (io.Closer, error) { return k.openStandIn(t, ns, env.Answer) }
	return k.installPosted(HookRedirect, t, r, k.newPostings("stand-in", t, open), env.Namespaces, redirectHooks)
}

// installPosted installs a rule whose harm is done by those who are posted in the target's network namespaces.
func (k *Kernel) installPosted(hook Hook, t Target, r Rule, p *postings, namespaces []NetNS, hooks cgroupPrograms) (*Installed, error) {
	in, err := k.install(hook, t, r, func() ([]func() error, error) {
		releases := []func() error{p.close}
		if err := p.addAll(namespaces); err != nil {
			return releases, err
		}
		// Last, so that the programs go first and nothing is sent to who is not there any more.
		more, err := k.useCgroupPrograms(hooks)
		return append(releases, more...), err
	}, nil)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	in.postings = p
	return in, nil
}

// openStandIn makes the sockets, has them served, and shows them to the kernel.
func (k *Kernel) openStandIn(t Target, ns NetNS, answer func(*StandIn) io.Closer) (io.Closer, error) {
	s, err := newStandIn(ns)
	if err != nil {
		return nil, err
	}
	s.target, s.hook, s.stoodIn = t.id(), k.hooks[HookRedirect], k.maps["faultd_stood_in"]
	opened := closers{closerFunc(s.close), closerFunc(func() error { return k.forgetServers(s) }), answer(s), closerFunc(func() error { return k.hideStandIn(&s.post, HookRedirect, s.families()) })}
	for family := range s.families() {
		if err := k.maps["faultd_stand_ins"].Put(s.key(HookRedirect, family), s.ports(family)); err != nil {
			return nil, errors.Join(fmt.Errorf("show the stand-in to the kernel: %w", err), opened.Close())
		}
	}
	return opened, nil
}

// hideStandIn keeps what is new from it.
func (k *Kernel) hideStandIn(p *post, hook Hook, families map[uint32]bool) error {
	var errs []error
	for family := range families {
		if err := ignoreMissing(k.maps["faultd_stand_ins"].Delete(p.key(hook, family))); err != nil {
			errs = append(errs, fmt.Errorf("hide the stand-in from the kernel: %w", err))
		}
	}
	return errors.Join(errs...)
}

// forgetServers takes away what the kernel noted of the servers in whose place the stand-in was.
func (k *Kernel) forgetServers(s *StandIn) error {
	var errs []error
	for _, socket := range s.Sockets {
		var server sharedServer
		err := s.stoodIn.Lookup(socket.key, &server)
		if err == nil {
			key := sharedServerKey{Netns: s.cookie, Target: s.target, Server: server}
			err = errors.Join(ignoreMissing(k.maps["faultd_servers"].Delete(key)), s.stoodIn.Delete(socket.key))
		}
		errs = append(errs, ignoreMissing(err))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget the servers of the stand-in: %w", err)
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
