// Package nftables has the numbers of nf_tables that neither golang.org/x/sys/unix nor the netlink package knows (linux/netfilter/nf_tables.h).
package nftables

// Attributes of tables, chains and hooks.
const (
	TableName    = 1 // NFTA_TABLE_NAME
	ChainTable   = 1 // NFTA_CHAIN_TABLE
	ChainName    = 3 // NFTA_CHAIN_NAME
	ChainHook    = 4 // NFTA_CHAIN_HOOK
	ChainType    = 7 // NFTA_CHAIN_TYPE
	HookNumber   = 1 // NFTA_HOOK_HOOKNUM
	HookPriority = 2 // NFTA_HOOK_PRIORITY
)

// InetIngress is the hook NF_INET_INGRESS.
const InetIngress = 5
