package experiment

import (
	"context"
	"fmt"
	"time"

	prometheus "github.com/prometheus/client_golang/api"
	query "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	v1 "faultd/api/faultd/v1alpha1"
)

// prometheusProbe evaluates a query that gives one number.
type prometheusProbe struct {
	api   query.API
	query string
}

func (d *document) prometheusProbe(field string, m *v1.PrometheusProbe) check {
	client, err := prometheus.NewClient(prometheus.Config{Address: m.GetUrl()})
	if err != nil {
		d.wrong(field+".url", "%v", err)
	}
	return prometheusProbe{query.NewAPI(client), m.GetQuery()}
}

func (p prometheusProbe) ask(ctx context.Context, _ Counters) (string, error) {
	result, _, _, err := p.api.Query(ctx, p.query, time.Now())
	if err != nil {
		return "", err
	}
	switch result := result.(type) {
	case *model.Scalar:
		return result.Value.String(), nil
	case model.Vector:
		if len(result) == 1 {
			return result[0].Value.String(), nil
		}
		return "", fmt.Errorf("the query gives %d series; it must give one, as sum(...) does", len(result))
	default:
		return "", fmt.Errorf("the query gives a %s; it must give one number", result.Type())
	}
}
