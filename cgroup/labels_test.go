package cgroup

import "testing"

func TestPodSelectorFits(t *testing.T) {
	web := map[string]string{"app": "web", "tier": "front", "empty": ""}
	for text, want := range map[string]bool{
		"shop": true, "other": false,
		"shop?app=web": true, "shop?app=db": false, "shop?none=web": false,
		"shop?app!=web": false, "shop?app!=db": true, "shop?none!=db": true,
		"shop?app in (db,web)": true, "shop?app in (db)": false, "shop?none in (db)": false,
		"shop?app notin (db)": true, "shop?app notin (web)": false, "shop?none notin (web)": true,
		"shop?app": true, "shop?none": false, "shop?!app": false, "shop?!none": true,
		"shop?empty=": true, "shop?app=": false, "shop?none=": false,
		"shop?app=web,tier=front": true, "shop?app=web,tier=back": false,
	} {
		s, err := parsePods(text)
		if err != nil || s.Fits("shop", "web-0", web) != want {
			t.Errorf("%s: %v, %v; want %v", text, !want, err, want)
		}
	}
	if s, err := parsePod("shop/web-0"); err != nil || !s.Fits("shop", "web-0", nil) || s.Fits("shop", "web-1", nil) || s.Fits("other", "web-0", nil) {
		t.Errorf("%+v, %v", s, err)
	}
}
