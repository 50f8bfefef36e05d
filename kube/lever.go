package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
)

// leverName begins the reason of a kill by a safety lever, by which it is told from everybody else's.
const leverName = "safety lever"

// A lever is looked at whenever a policy changes, and every so often, as the daemon may have been armed or started anew.
const (
	leverInterval = 5 * time.Second
	leverPatience = time.Second
)

// holdLever does what the safety levers say until ctx is over.
func (a *Agent) holdLever(ctx context.Context) {
	ticker := time.NewTicker(leverInterval)
	defer ticker.Stop()
	for {
		retry := ticker.C
		if err := a.pullLever(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("the safety lever is not done", "error", err)
			retry = time.After(leverPatience)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.policiesChanged:
		case <-retry:
		}
	}
}

// pullLever kills if a lever is engaged, and arms when all are released, if it was a lever that killed.
func (a *Agent) pullLever(ctx context.Context) error {
	engaged := a.knownLever()
	asking, cancel := context.WithTimeout(ctx, leverPatience)
	state, err := a.daemon.List(asking, connect.NewRequest(&v1.ListRequest{}))
	cancel()
	switch {
	case engaged != "" && (err != nil || state.Msg.GetArmed()): // the daemon kills even when it does not answer anything else
		killing, cancel := context.WithTimeout(ctx, 2*leverPatience)
		defer cancel()
		if _, err := a.daemon.Kill(killing, connect.NewRequest(&v1.KillRequest{Reason: cut(engaged, 512)})); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
		a.log.Warn("killed", "reason", engaged)
	case err != nil:
		return fmt.Errorf("ask the daemon how the switch stands: %w", err)
	case engaged == "" && !state.Msg.GetArmed() && strings.Contains(state.Msg.GetReason(), leverName+" of ChaosPolicy "):
		if _, err := a.daemon.Arm(ctx, connect.NewRequest(&v1.ArmRequest{Reason: "the " + leverName + " is released"})); err != nil {
			return fmt.Errorf("arm: %w", err)
		}
		a.log.Warn("armed", "reason", "the safety lever is released")
	}
	return nil
}

// knownLever says why everything is stopped, as far as the watch of the policies knows. Of one that makes no sense only the lever counts.
func (a *Agent) knownLever() string {
	var all policies
	for _, one := range a.policies.GetStore().List() {
		if object, ok := one.(*unstructured.Unstructured); ok {
			all = append(all, leverOf(object))
		}
	}
	return all.lever()
}

// leverOf reads the lever alone.
func leverOf(object *unstructured.Unstructured) policy {
	engaged, _, _ := unstructured.NestedBool(object.Object, "spec", "safetyLever", "engaged")
	reason, _, _ := unstructured.NestedString(object.Object, "spec", "safetyLever", "reason")
	return policy{name: object.GetName(), spec: &v1.ChaosPolicySpec{SafetyLever: &v1.SafetyLever{Engaged: engaged, Reason: reason}}}
}
