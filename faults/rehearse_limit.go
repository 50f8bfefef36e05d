package faults

import "faultd/cgroup"

// Limits look at what the target has, loads at what the node and the target have room for.
var (
	_ Rehearser = CPU{}
	_ Rehearser = Memory{}
	_ Rehearser = IO{}
	_ Rehearser = Pids{}
)

// rehearseLimits gives the error with which limits would be refused; err is what making them came to.
func rehearseLimits(env Env, target cgroup.Target, settings []setting, err error) error {
	if err != nil {
		return err
	}
	return (&limits{env: env, target: target, all: limitsOf(settings)}).fit()
}

// rehearseBurner gives the error with which a burner in this place would be refused; err is what looking at its load came to.
func rehearseBurner(env Env, target cgroup.Target, place string, err error) error {
	if err == nil {
		_, err = burnerHome(env, target, place)
	}
	return err
}

// Rehearse implements Rehearser.
func (c CPU) Rehearse(env Env, target cgroup.Target) error {
	if c.Load != nil {
		_, _, err := c.Load.work(env, target)
		return rehearseBurner(env, target, c.Load.Place, err)
	}
	settings, _, err := c.limits(env, target)
	return rehearseLimits(env, target, settings, err)
}

// Rehearse implements Rehearser.
func (m Memory) Rehearse(env Env, target cgroup.Target) error {
	if m.Load != nil {
		return m.Load.rehearse(env, target)
	}
	settings, _, err := m.limits(env, target)
	return rehearseLimits(env, target, settings, err)
}

func (l *MemoryLoad) rehearse(env Env, target cgroup.Target) error {
	if _, err := l.level(env, target, memoryRoom{env: env, dir: memoryDir(env, target, l.Place)}); err != nil {
		return err
	}
	var err error
	if l.Type == typeCache {
		err = rehearsePlace(l.cachePlace(env, target))
	}
	return ofKind("memory", rehearseBurner(env, target, l.Place, err))
}

// rehearsePlace lets go of a place in which nothing is made.
func rehearsePlace(p *place, err error) error {
	if err != nil {
		return err
	}
	return p.close()
}

// Rehearse implements Rehearser.
func (f IO) Rehearse(env Env, target cgroup.Target) error {
	if f.Load != nil {
		err := rehearsePlace(f.Load.place(env, target, f.Path))
		return ofKind("io", rehearseBurner(env, target, f.Load.Place, err))
	}
	settings, _, err := f.limits(env, target)
	return rehearseLimits(env, target, settings, err)
}

// Rehearse implements Rehearser.
func (p Pids) Rehearse(env Env, target cgroup.Target) error {
	if p.Load != nil {
		_, _, err := p.Load.amounts(env, target)
		return rehearseBurner(env, target, p.Load.Place, err)
	}
	settings, _, err := p.limits(env, target)
	return rehearseLimits(env, target, settings, err)
}
