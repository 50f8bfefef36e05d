package faults

import (
	"fmt"
	"slices"
	"strings"

	"faultd/bpf"
)

// socketOp is something that is done to a socket.
type socketOp struct {
	name string
	op   bpf.Ops
	// noPeer says why the peer is not known when it is done; empty: it is known.
	noPeer string
}

func socketOps() []socketOp {
	return []socketOp{
		{"socket", bpf.OpSocket, "a new socket has no peer"},
		{"bind", bpf.OpBind, "an address is bound before there is a peer"},
		{"listen", bpf.OpListen, "a socket that listens has no peer"},
		{"connect", bpf.OpConnect, ""},
		{"accept", bpf.OpAccept, "who connects is known only afterwards"},
		{"send", bpf.OpSend, ""},
		{"receive", bpf.OpReceive, ""},
	}
}

// parseSocketOps gives the set of the ops named; none: connect. With peers they must all have one.
func parseSocketOps(names []string, peers bool) (ops bpf.Ops, err error) {
	if len(names) == 0 {
		return bpf.OpConnect, nil
	}
	all := socketOps()
	for _, name := range names {
		i := slices.IndexFunc(all, func(op socketOp) bool { return op.name == name })
		if i < 0 {
			return 0, fmt.Errorf("ops: %q is unknown; it must be one of %s", name, strings.Join(socketOpNames(), ", "))
		}
		if peers && all[i].noPeer != "" {
			return 0, fmt.Errorf("ops: %s was given together with peers or ports, and %s; give connect, send or receive, or no peers", name, all[i].noPeer)
		}
		ops |= all[i].op
	}
	return ops, nil
}

// peerless says whether none of the ops has a peer; no ops mean connect.
func peerless(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(socketOps(), func(op socketOp) bool { return op.noPeer == "" && slices.Contains(names, op.name) })
}

func socketOpNames() (names []string) {
	for _, op := range socketOps() {
		names = append(names, op.name)
	}
	return names
}
