// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func table(t testing.TB, line, zoneName string) timetable {
	t.Helper()
	spec := &pbatchv1.CronJobSpec{Schedule: line}
	if zoneName != "" {
		spec.TimeZone = &zoneName
	}
	out, fault := readSchedule(spec, time.UTC)
	if fault != nil {
		t.Fatal(fault)
	}
	return out
}

// TestDaylightSaving: in Zurich the clock goes from 2:00 to 3:00 on 29 March 2026, and from 3:00 back to 2:00 on 25 October. Upstream uses
// the same library, so its answers are the expectation: a time that doesn't exist is left out, one that comes twice runs twice, and a
// schedule of hours or macros goes on evenly.
func TestDaylightSaving(t *testing.T) {
	const spring, autumn = "2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z"
	for what, test := range map[string]struct {
		schedule, zone, from string
		want                 []string
	}{
		"spring, a time that doesn't exist": {"30 2 * * *", "Europe/Zurich", spring, []string{"2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"}},
		"spring, the hour before":           {"30 1 * * *", "Europe/Zurich", spring, []string{"2026-03-29T01:30:00+01:00", "2026-03-30T01:30:00+02:00"}},
		"spring, the hour after":            {"0 3 * * *", "Europe/Zurich", spring, []string{"2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"}},
		"spring, every hour": {"@hourly", "Europe/Zurich", "2026-03-29T00:00:00Z", []string{
			"2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00",
		}},
		"spring, midnight": {"@daily", "Europe/Zurich", spring, []string{"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		"autumn, a time that comes twice": {"30 2 * * *", "Europe/Zurich", autumn, []string{
			"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00",
		}},
		"autumn, the hour after": {"0 3 * * *", "Europe/Zurich", autumn, []string{"2026-10-25T03:00:00+01:00", "2026-10-26T03:00:00+01:00"}},
		"autumn, every hour": {"@hourly", "Europe/Zurich", "2026-10-25T00:00:00Z", []string{
			"2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00",
		}},
		"autumn, every 30 minutes in UTC":   {"*/30 * * * *", "Etc/UTC", "2026-10-25T00:30:00Z", []string{"2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"}},
		"a zone whose midnight is left out": {"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", []string{"2018-11-05T00:00:00-02:00"}},
	} {
		t.Run(what, func(t *testing.T) {
			from, err := time.Parse(time.RFC3339, test.from)
			if err != nil {
				t.Fatal(err)
			}
			tt, z := table(t, test.schedule, test.zone), zone(t, test.zone)
			var got []string
			for range test.want {
				next := tt.next(from, from)
				if last := tt.last(from, next); !last.Equal(next) {
					t.Errorf("at %s the last time is %s", next, last)
				}
				got, from = append(got, next.In(z).Format(time.RFC3339)), next
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLast: the latest missed time is found where upstream's estimate by the first two times would fail as well.
func TestLast(t *testing.T) {
	for what, test := range map[string]struct {
		schedule, since, now, want string
		many                       bool
	}{
		"none yet":              {"0 * * * *", "2026-11-21T10:00:00Z", "2026-11-21T10:59:59Z", "", false},
		"exactly now":           {"0 * * * *", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", "2026-11-21T11:00:00Z", false},
		"two":                   {"0 * * * *", "2026-11-21T10:00:00Z", "2026-11-21T12:30:00Z", "2026-11-21T12:00:00Z", false},
		"uneven":                {"0 9-10 * * *", "2026-11-20T12:00:00Z", "2026-11-21T23:00:00Z", "2026-11-21T10:00:00Z", false},
		"working days":          {"30 6-16/4 * * 1-5", "2026-11-20T12:00:00Z", "2026-11-22T12:00:00Z", "2026-11-20T14:30:00Z", false},
		"100":                   {"* * * * *", "2026-11-21T10:00:00Z", "2026-11-21T11:40:00Z", "2026-11-21T11:40:00Z", false},
		"101":                   {"* * * * *", "2026-11-21T10:00:00Z", "2026-11-21T11:41:00Z", "2026-11-21T11:41:00Z", true},
		"years":                 {"* * * * *", "2016-11-21T10:00:00Z", "2026-11-21T11:41:30Z", "2026-11-21T11:41:00Z", true},
		"a clock that was late": {"* * * * *", "2026-11-21T10:00:00Z", "2026-11-20T11:41:30Z", "", false},
		"every, none yet":       {"@every 90m", "2026-11-21T10:00:00Z", "2026-11-21T11:29:59Z", "", false},
		"every, once":           {"@every 90m", "2026-11-21T10:00:00Z", "2026-11-21T11:30:00Z", "2026-11-21T11:30:00Z", false},
		"every, often":          {"@every 1m", "2026-11-21T10:00:30Z", "2026-11-21T13:10:00Z", "2026-11-21T13:09:30Z", true},
	} {
		t.Run(what, func(t *testing.T) {
			since, _ := time.Parse(time.RFC3339, test.since)
			now, _ := time.Parse(time.RFC3339, test.now)
			tt, got := table(t, test.schedule, ""), ""
			if last := tt.last(since, now); !last.IsZero() {
				got = last.Format(time.RFC3339)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if many := tt.missedMany(since, now); many != test.many {
				t.Errorf("many missed: %v, want %v", many, test.many)
			}
		})
	}
}

// TestLastIsTheLastOfAll compares the search with going through all times, over both changes of the clock.
func TestLastIsTheLastOfAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tt := table(t, rapid.SampledFrom([]string{
			"* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * *", "0 9-10 * * *", "0 0 1 * *", "5 4 * * 1-5", "@daily", "@weekly", "0 0 29 2 *",
		}).Draw(rt, "schedule"), rapid.SampledFrom([]string{"", "Europe/Zurich", "America/Sao_Paulo", "Australia/Lord_Howe"}).Draw(rt, "zone"))
		change := rapid.SampledFrom([]string{"2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2018-11-04T03:00:00Z", "2026-04-04T15:00:00Z"}).Draw(rt, "around")
		since, _ := time.Parse(time.RFC3339, change)
		since = since.Add(time.Duration(rapid.IntRange(-200_000, 100_000).Draw(rt, "seconds")) * time.Second)
		now := since.Add(time.Duration(rapid.Int64Range(0, 300_000_000).Draw(rt, "milliseconds")) * time.Millisecond)
		var want time.Time
		for at := tt.schedule.Next(since); !at.IsZero() && !at.After(now); at = tt.schedule.Next(at) {
			want = at
		}
		if got := tt.last(since, now); !got.Equal(want) {
			rt.Fatalf("after %s until %s: got %s, want %s", since, now, got, want)
		}
	})
}

// TestFaults: each bad schedule has one sentence that says what to do.
func TestFaults(t *testing.T) {
	for what, test := range map[string]struct{ schedule, zone, reason, message string }{
		"four fields":        {"* * * *", "", reasonUnparseableSchedule, `The schedule "* * * *" can't be read: expected exactly 5 fields, found 4: [* * * *].`},
		"a zone inside":      {"TZ=Europe/Zurich 0 0 * * *", "", reasonUnsupportedSchedule, `The schedule "TZ=Europe/Zurich 0 0 * * *" names a time zone: write it into spec.timeZone.`},
		"a panic":            {"TZ=0", "", reasonUnsupportedSchedule, `The schedule "TZ=0" names a time zone: write it into spec.timeZone.`},
		"an unknown zone":    {"0 0 * * *", "Europe/Atlantis", reasonUnknownTimeZone, `The time zone "Europe/Atlantis" isn't known: write a name such as Europe/Zurich into spec.timeZone.`},
		"the local zone":     {"0 0 * * *", "Local", reasonUnknownTimeZone, `The time zone "Local" isn't known: write a name such as Europe/Zurich into spec.timeZone.`},
		"a day that is none": {"59 23 31 2 *", "", reasonInvalidSchedule, `The schedule "59 23 31 2 *" names no day that exists: change spec.schedule.`},
	} {
		t.Run(what, func(t *testing.T) {
			s := newScope(func(cj *pbatchv1.CronJob) {
				cj.Spec.Schedule = test.schedule
				if test.zone != "" {
					cj.Spec.TimeZone = &test.zone
				}
			})
			s.read(time.UTC)
			if s.fault == nil {
				t.Fatal("no fault")
			}
			if diff := cmp.Diff(fault{test.reason, test.message}, *s.fault, cmp.AllowUnexported(fault{})); diff != "" {
				t.Error(diff)
			}
			if p := makePlan(s); !p.start.IsZero() || !p.next.IsZero() {
				t.Errorf("a run is planned: %+v", p)
			}
		})
	}
}
