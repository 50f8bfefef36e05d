package main

import (
	"github.com/urfave/cli/v2"

	v1 "faultd/api/faultd/v1alpha1"
)

func dnsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "name", Usage: "`NAME` that is hurt: example.com, .example.com (with all below it) or a glob such as *.example.com; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "type", Usage: "`TYPE` of record that is asked for, such as A or AAAA; repeatable", DefaultText: "all"},
		&cli.StringSliceFlag{Name: "answer", Usage: "NXDOMAIN, SERVFAIL, REFUSED, timeout, truncated or random; or an address or record such as 10.1.2.3 or 'MX 10 mail.example.com'; those are repeatable"},
		&cli.StringFlag{Name: "delay", Usage: "how long a query waits before it is answered, or passed on"},
		jitterFlag(), distributionFlag(),
	}
}

func dnsKind(c *cli.Context, spec *v1.FaultSpec) error {
	answers := listed(c, "answer")
	if len(answers) == 0 && c.String("delay") == "" {
		return usageErrorf("give --answer or --delay")
	}
	spec.Kind = &v1.FaultSpec_Dns{Dns: &v1.Dns{Names: listed(c, "name"), Types: listed(c, "type"), Answers: answers, Delay: c.String("delay"), Jitter: c.String("jitter"), Distribution: c.String("distribution")}}
	return nil
}
