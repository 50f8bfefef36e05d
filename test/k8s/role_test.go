package k8s

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/yaml"
)

// account is the agents', which has the rights of the installation's role and no others; everybody else may do everything.
const account = "system:serviceaccount:faultd:faultd"

// role is that of the installation.
type role struct {
	rules []rbac.PolicyRule

	mu      sync.Mutex
	refused []string
}

// readRole reads it from the manifest.
func readRole() (*role, error) {
	text, err := os.ReadFile(deployDir + "/experiments/rbac.yaml")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(text), "\n---\n")
	var read rbac.ClusterRole
	if err := yaml.UnmarshalStrict([]byte(first), &read); err != nil {
		return nil, fmt.Errorf("read the role: %w", err)
	}
	return &role{rules: read.Rules}, nil
}

// Authorize implements authorizer.Authorizer, as far as the role's rules need it.
func (r *role) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser() == nil || a.GetUser().GetName() != account || !a.IsResourceRequest() {
		return authorizer.DecisionAllow, "", nil
	}
	resource := a.GetResource()
	if a.GetSubresource() != "" {
		resource += "/" + a.GetSubresource()
	}
	for _, rule := range r.rules {
		if slices.Contains(rule.APIGroups, a.GetAPIGroup()) && slices.Contains(rule.Resources, resource) && slices.Contains(rule.Verbs, a.GetVerb()) {
			return authorizer.DecisionAllow, "", nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, a.GetVerb()+" "+resource)
	return authorizer.DecisionDeny, "no rule of the role allows it", nil
}

// denied are what the account asked and was not allowed.
func (r *role) denied() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refused)
}
