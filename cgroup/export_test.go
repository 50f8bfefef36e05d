package cgroup

// EnterHostNamespaceOf is EnterHostNamespace where another process than the first one is in the host's.
var EnterHostNamespaceOf = enterHostNamespace
