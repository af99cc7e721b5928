// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var reportFile = flag.String("report", "", "write every case with both answers to this file")

const corpusDir = "../../../../shared/corpus"

// outcome is what came out of one case.
type outcome struct {
	one          testCase
	native, ours answer
	// listed are the ids of the listed differences that occurred.
	listed []string
	// unlisted are sentences about differences that nobody has listed.
	unlisted []string
	// fault says that the case itself is wrong.
	fault string
}

func TestSchemaOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the schema oracle needs an API server, and -short was given.")
	}
	ctx := t.Context()
	cases := allCases(t)
	differences, err := loadDifferences(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	server := startServer(ctx, t)
	t.Logf("started in %s", time.Since(started))

	outcomes := askAll(ctx, server, cases)
	agree := 0
	for i := range outcomes {
		judge(&outcomes[i], differences)
		o := outcomes[i]
		switch {
		case o.fault != "":
			t.Errorf("%s: %s", o.one.name, o.fault)
		case len(o.unlisted) > 0:
			t.Errorf("%s:\n    %s", o.one.name, strings.Join(o.unlisted, "\n    "))
		case len(o.listed) == 0:
			agree++
		}
	}
	for _, d := range differences {
		if d.seen == 0 {
			t.Errorf("%s lists %s, which no longer occurs: take it out there and run 'go test ./test/conformance/schema -run TestParity -update'", differencesFile, d.ID)
		}
	}
	writeReport(t, outcomes)
	for _, d := range differences {
		fmt.Printf("  %4d cases  %s\n", d.seen, d.ID)
	}
	fmt.Printf("schema oracle: %d of %d agree, %d listed differences\n", agree, len(outcomes), len(differences))
}

// allCases are the corpus's, the made ones and the generator's.
func allCases(t *testing.T) []testCase {
	t.Helper()
	groups, err := loadGroups("testdata")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := madeCases(groups)
	if err != nil {
		t.Fatal(err)
	}
	fromMade := len(cases)
	cases = append(cases, longCases()...)
	if _, err := os.Stat(corpusDir); err != nil {
		absolute, _ := filepath.Abs(corpusDir)
		if os.Getenv("CI") == "true" {
			t.Errorf("The corpus is missing at %s: put it beside the repository.", absolute)
		} else {
			fmt.Printf("SKIPPED: the manifests of the corpus, because %s is missing.\n", absolute)
		}
	} else {
		corpus, without, err := corpusCases(corpusDir)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, corpus...)
		fmt.Printf("corpus: %d manifests, and %d of kinds that Pinnace doesn't carry\n", len(corpus), without)
	}
	fuzzed := fuzzCases(cases[:fromMade])
	fmt.Printf("made: %d cases; generated: %d\n", fromMade+len(longCases()), len(fuzzed))
	return append(cases, fuzzed...)
}

// askAll asks both kinds about every case, a few cases at a time.
func askAll(ctx context.Context, server *server, cases []testCase) []outcome {
	outcomes := make([]outcome, len(cases))
	var workers sync.WaitGroup
	next := make(chan int)
	for range 4 {
		workers.Go(func() {
			for i := range next {
				outcomes[i] = server.ask(ctx, cases[i], i)
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	workers.Wait()
	return outcomes
}

// judge fills in what is listed and what isn't.
func judge(o *outcome, differences []*difference) {
	if o.fault != "" {
		return
	}
	if o.one.want != "" && o.native.verdict != o.one.want {
		o.fault = fmt.Sprintf("the case says that upstream's verdict is %q, but upstream %s it: %s", o.one.want, o.native.verdict, o.native.sentence)
		return
	}
	note := func(matches func(*difference) bool, sentence string) {
		at := slices.IndexFunc(differences, matches)
		if at < 0 {
			o.unlisted = append(o.unlisted, sentence)
			return
		}
		if d := differences[at]; !slices.Contains(o.listed, d.ID) {
			o.listed = append(o.listed, d.ID)
			d.seen++
		}
	}
	if o.native.verdict != o.ours.verdict {
		note(func(d *difference) bool { return d.coversVerdict(o.one, o.native, o.ours) },
			fmt.Sprintf("upstream %s it, ours %s it. Upstream: %q; ours: %q", o.native.verdict, o.ours.verdict, o.native.sentence, o.ours.sentence))
		return
	}
	if o.native.verdict != accepted {
		return
	}
	for _, field := range compareObjects(o.native.object, o.ours.object) {
		note(func(d *difference) bool { return d.coversField(o.one, field) }, field.String())
	}
}

func writeReport(t *testing.T, outcomes []outcome) {
	t.Helper()
	if *reportFile == "" {
		return
	}
	var out strings.Builder
	for _, o := range outcomes {
		mark := "=="
		switch {
		case o.fault != "":
			mark = "??"
		case len(o.unlisted) > 0:
			mark = "!!"
		case len(o.listed) > 0:
			mark = "~~"
		}
		fmt.Fprintf(&out, "%s %s %v %s\n", mark, o.one.name, o.listed, o.fault)
		for _, line := range o.unlisted {
			fmt.Fprintf(&out, "     %s\n", line)
		}
		if o.native.verdict == refused {
			fmt.Fprintf(&out, "     upstream: %s\n", o.native.sentence)
		}
		if o.ours.verdict == refused {
			fmt.Fprintf(&out, "     ours:     %s\n", o.ours.sentence)
		}
	}
	if err := os.WriteFile(*reportFile, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
