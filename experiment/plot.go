package experiment

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The size of a plot, and where its axes are.
const (
	plotWidth  = 940
	plotHeight = 190
	plotLeft   = 64
	plotRight  = plotWidth - 12
	plotTop    = 22
	plotBottom = plotHeight - 26
)

// plot is a drawing over the time of a run, in the coordinates of its picture.
type plot struct {
	Width, Height, Left, Right, Top, Bottom int
	// Harm is when faults were on; Phases are where they begin.
	Harm   []bar
	Phases []label
	Lines  []line
	// Marks are failures, at the top.
	Marks        []mark
	XTicks       []label
	YTicks       []label
	Title        string
	start        time.Time
	length, most float64
}

// PlotHeight is how high the part between the axes is.
func (p *plot) PlotHeight() int { return p.Bottom - p.Top }

// LabelX is where labels of the y axis end.
func (p *plot) LabelX() int { return p.Left - 8 }

// LabelY is where labels of the x axis stand.
func (p *plot) LabelY() int { return p.Bottom + 18 }

// MarkEnd is how far down failures are marked.
func (p *plot) MarkEnd() int { return p.Top + 14 }

type bar struct {
	X, Width float64
	Text     string
}

type label struct {
	X, Y float64
	Text string
}

type line struct {
	Points, Name string
	Class        int
}

type mark struct {
	X    float64
	Text string
}

// plot makes an empty one, whose values go up to most, as unit writes them.
func (r *Result) plot(title string, most float64, unit func(float64) string) *plot {
	p := &plot{
		Width: plotWidth, Height: plotHeight, Left: plotLeft, Right: plotRight, Top: plotTop, Bottom: plotBottom,
		Title: title, start: r.Start, length: max(r.End.Sub(r.Start).Seconds(), 1e-3), most: niceAbove(most),
	}
	for _, a := range r.Activations {
		x := p.x(a.Start)
		p.Harm = append(p.Harm, bar{x, max(p.x(a.End)-x, 1), r.Plan.Faults[a.Fault].Label()})
	}
	for _, s := range r.Spans {
		p.Phases = append(p.Phases, label{p.x(s.Start), plotTop, string(s.Phase)})
	}
	step := niceAbove(p.length / 6)
	for t := 0.0; t <= p.length; t += step {
		p.XTicks = append(p.XTicks, label{plotLeft + t/p.length*(plotRight-plotLeft), plotBottom, fmt.Sprintf("%.4g s", t)})
	}
	for i := range 3 {
		value := p.most * float64(i) / 2
		p.YTicks = append(p.YTicks, label{plotLeft, p.y(value), unit(value)})
	}
	return p
}

// niceAbove is the next of 1, 2, 5, 10, 20, ... and so on, in all magnitudes.
func niceAbove(value float64) float64 {
	if value <= 0 || math.IsInf(value, 0) {
		return 1
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(value)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if value <= factor*magnitude {
			return factor * magnitude
		}
	}
	return 10 * magnitude
}

func (p *plot) x(t time.Time) float64 {
	share := t.Sub(p.start).Seconds() / p.length
	return plotLeft + min(max(share, 0), 1)*(plotRight-plotLeft)
}

func (p *plot) y(value float64) float64 {
	return plotBottom - min(max(value/p.most, 0), 1)*(plotBottom-plotTop)
}

// add draws a line; of values that are less than a point apart the highest counts.
func (p *plot) add(name string, class int, at []time.Time, values []float64) {
	var points []string
	for i := 0; i < len(at); {
		x, highest := p.x(at[i]), values[i]
		for i++; i < len(at) && p.x(at[i]) < x+1; i++ {
			highest = max(highest, values[i])
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, p.y(highest)))
	}
	p.Lines = append(p.Lines, line{strings.Join(points, " "), name, class})
}

// plotProbe draws how long the good tries took, and marks the bad ones.
func (r *Result) plotProbe(i int) *plot {
	var at []time.Time
	var took []float64
	most := 0.0
	for _, s := range r.Samples[i] {
		if s.Failure == "" {
			at, took = append(at, s.At), append(took, s.Took.Seconds())
			most = max(most, s.Took.Seconds())
		}
	}
	p := r.plot("latency of "+r.Plan.Probes[i].Name+" over time", most, func(s float64) string {
		return short(time.Duration(s * float64(time.Second))).String()
	})
	p.add(r.Plan.Probes[i].Name, 0, at, took)
	last := -1.0
	for _, s := range r.Samples[i] {
		if x := p.x(s.At); s.Failure != "" && x >= last+1 {
			p.Marks = append(p.Marks, mark{x, s.Failure})
			last = x
		}
	}
	return p
}

// plotCounts draws what each fault had injected, over all times that it was on.
func (r *Result) plotCounts() *plot {
	most := 0.0
	for _, f := range r.Plan.Faults {
		most = max(most, float64(total(r.Plan, r.Activations, f.Name).GetInjected()))
	}
	p := r.plot("injected over time", most, func(n float64) string { return fmt.Sprintf("%.4g", n) })
	for i, f := range r.Plan.Faults {
		var at []time.Time
		var counts []float64
		before := uint64(0)
		for _, a := range r.Activations {
			if a.Fault != i {
				continue
			}
			at, counts = append(at, a.Start), append(counts, float64(before))
			for _, point := range a.Points {
				at, counts = append(at, point.At), append(counts, float64(before+point.Count))
			}
			before += a.Last.GetCounters().GetInjected()
		}
		p.add(f.Label(), i%plotClasses, at, counts)
	}
	return p
}

// plotClasses is how many lines look different.
const plotClasses = 5
