package undo

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// rootQdisc is one that every kernel has.
func (n *network) rootQdisc(kind string, major uint32) netlink.Qdisc {
	return &netlink.GenericQdisc{QdiscType: kind, QdiscAttrs: netlink.QdiscAttrs{LinkIndex: n.lo.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: major << 16}}
}

func (n *network) ourQdisc() *RemoveQdisc {
	return &RemoveQdisc{NetNSInode: n.inode, Ifindex: n.lo.Attrs().Index, Ifname: "lo", Handle: 0x77 << 16, Kind: "pfifo"}
}

// root is the kind of the root qdisc; a device that was never up has none.
func (n *network) root(t *testing.T) string {
	t.Helper()
	qdiscs, err := n.QdiscList(n.lo)
	if err != nil {
		t.Fatal(err)
	}
	root := rootOf(qdiscs)
	if root == nil {
		return ""
	}
	return root.Type()
}

func qdiscAction(r *RemoveQdisc) Action { return Action{Version: Version, RemoveQdisc: r} }

func TestRemoveQdisc(t *testing.T) {
	n := testNetwork(t)
	before := n.root(t)
	r := n.ourQdisc()
	wantUndo(t, qdiscAction(r), AlreadyGone) // written down, nothing done yet
	for range 2 {
		if err := n.QdiscAdd(n.rootQdisc("pfifo", 0x77)); err != nil {
			t.Fatal(err)
		}
		wantUndo(t, qdiscAction(r), Undone)
		if got := n.root(t); got != before {
			t.Errorf("the root is %q, before it was %q", got, before)
		}
		wantUndo(t, qdiscAction(r), AlreadyGone)
	}
}

func TestRemoveQdiscInOurPlace(t *testing.T) {
	n := testNetwork(t)
	for _, theirs := range []netlink.Qdisc{n.rootQdisc("pfifo", 0x78), n.rootQdisc("bfifo", 0x77)} {
		if err := n.QdiscAdd(theirs); err != nil {
			t.Fatal(err)
		}
		wantUndo(t, qdiscAction(n.ourQdisc()), Changed)
		if got := n.root(t); got != theirs.Type() {
			t.Errorf("the root is %s, somebody had made it %s", got, theirs.Type())
		}
		if err := n.QdiscDel(theirs); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemoveQdiscOfWhatIsGone(t *testing.T) {
	n := testNetwork(t)
	r := n.ourQdisc()
	r.Ifindex = 1000
	wantUndo(t, qdiscAction(r), AlreadyGone)
	n.Close() // a socket keeps its namespace
	n.leave()
	wantUndo(t, qdiscAction(n.ourQdisc()), AlreadyGone)
}

// queueLength is that of the device.
func (n *network) queueLength(t *testing.T) int {
	t.Helper()
	now, err := n.LinkByIndex(n.lo.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	return now.Attrs().TxQLen
}

// TestQueueLength: a queue without a length has none again when our qdisc is gone, unless somebody else has made it what it is.
func TestQueueLength(t *testing.T) {
	n := testNetwork(t)
	filter := n.ours(true)
	filter.NoQueue = true
	qdisc := n.ourQdisc()
	qdisc.NoQueue = true
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: n.lo.Attrs().Index, Handle: 0xffff << 16, Parent: netlink.HANDLE_CLSACT}}
	set := func(length int) {
		t.Helper()
		if err := n.LinkSetTxQLen(n.lo, length); err != nil {
			t.Fatal(err)
		}
	}
	add := func(q netlink.Qdisc) {
		t.Helper()
		if err := n.QdiscAdd(q); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(length int, when string) {
		t.Helper()
		if got := n.queueLength(t); got != length {
			t.Errorf("%s: the queue has the length %d, want %d", when, got, length)
		}
	}
	root := n.rootQdisc("pfifo", 0x77)

	set(0)
	add(root)
	wants(kernelsLength, "a qdisc is there")
	wantUndo(t, qdiscAction(qdisc), Undone)
	wants(0, "it is gone")
	add(root)
	set(500)
	wantUndo(t, qdiscAction(qdisc), Undone)
	wants(500, "somebody has set another length")

	set(0)
	add(clsact)
	add(root)
	wantUndo(t, qdiscAction(qdisc), Undone)
	wants(kernelsLength, "another qdisc is there")
	wantUndo(t, filterAction(filter), Undone)
	wants(0, "both are gone")
	wantUndo(t, filterAction(filter), AlreadyGone)
}
