package bpf

// Ops is a set of what security hooks are about (enum op: bit 1 << op).
type Ops uint32

// The ops.
const (
	OpOpen Ops = 1 << iota
	OpCreate
	OpRead
	OpWrite
	OpTruncate
	OpUnlink
	OpRename
	OpMkdir
	OpRmdir
	OpLink
	OpStat
	OpSetattr
	OpMmap
	OpExec
	OpLock
	OpIoctl
	OpSocket
	OpBind
	OpConnect
	OpListen
	OpAccept
	OpSend
	OpReceive
	OpShutdown
	OpFork
)
