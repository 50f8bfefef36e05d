package experiment

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// errorBudget is the time that objectives may be missed.
type errorBudget struct {
	interval
	budget     time.Duration
	objectives []objective
	last       time.Time

	mu sync.Mutex
	// spent of it, up to the last look.
	spent time.Duration
}

// objective is something that a query says.
type objective struct {
	name   string
	query  check
	wanted Tolerance
	// share of all weights.
	share float64
}

// defaultBudgetLook is how often the objectives are looked at.
const defaultBudgetLook = 5 * time.Second

func (d *document) errorBudget(field string, m *v1.ErrorBudget) *errorBudget {
	b := &errorBudget{
		interval: interval(d.duration(field+".interval", m.GetInterval(), leastDuration, defaultBudgetLook)),
		budget:   d.duration(field+".budget", m.GetBudget(), leastDuration, leastDuration),
	}
	all := 0.0
	for i, o := range m.GetObjectives() {
		inner := fmt.Sprintf("%s.objectives[%d]", field, i)
		one := objective{name: o.GetName(), query: d.prometheusProbe(inner, &v1.PrometheusProbe{Url: m.GetUrl(), Query: o.GetQuery()}), share: o.GetWeight()}
		one.wanted.Compare, one.wanted.To = d.comparison(inner+".compare", o.GetCompare())
		if one.share == 0 {
			one.share = 1
		}
		all += one.share
		b.objectives = append(b.objectives, one)
	}
	for i := range b.objectives {
		b.objectives[i].share /= all
	}
	d.unique(field+".objectives", len(b.objectives), func(i int) string { return b.objectives[i].name })
	return b
}

// missed says how much of the objectives does not hold, and for the first of them why.
func (b *errorBudget) missed(ctx context.Context) (share float64, why string) {
	ctx, cancel := context.WithTimeout(ctx, max(b.every(), defaultTry))
	defer cancel()
	for _, o := range b.objectives {
		value, err := o.query.ask(ctx, nil)
		if err == nil {
			err = o.wanted.judge(value)
		}
		if err == nil {
			continue
		}
		if share += o.share; why == "" {
			why = fmt.Sprintf("objective %s: %v", o.name, err)
		}
	}
	return share, why
}

func (b *errorBudget) look(ctx context.Context, on bool) string {
	share, why := b.missed(ctx)
	if !on {
		return why
	}
	if ctx.Err() != nil {
		return "" // what was asked was cut short
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.spent += time.Duration(share * float64(now.Sub(b.last)))
	}
	b.last = now
	if b.spent <= b.budget {
		return ""
	}
	return fmt.Sprintf("the error budget of %s is spent; %s", b.budget, why)
}

// share is how much of it is spent; 1: all.
func (b *errorBudget) share() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return float64(b.spent) / float64(b.budget)
}

// String tells how much is spent.
func (b *errorBudget) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("of the error budget of %s %s is spent (%s %%)", b.budget, short(b.spent), strconv.FormatFloat(100*float64(b.spent)/float64(b.budget), 'f', 0, 64))
}
