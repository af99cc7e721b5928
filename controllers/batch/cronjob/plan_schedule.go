// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a machine without a time zone database is no reason for a run to be missed

	"github.com/robfig/cron/v3"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
)

// manyMissed is how many missed times are too many to be taken for a short absence. Upstream's.
const manyMissed = 100

// fault is why a schedule can't be followed: the user has to change it.
type fault struct{ reason, message string }

// timetable is a schedule that was understood.
type timetable struct {
	schedule cron.Schedule
	// every is the distance between two times of an @every schedule, which counts from the run before; 0 for all others, which
	// name their times absolutely.
	every time.Duration
}

// readSchedule understands a schedule. local is the zone that it means when it names none. What admission refuses is said again here,
// since an object may be older than the rules.
func readSchedule(spec *pbatchv1.CronJobSpec, local *time.Location) (timetable, *fault) {
	if strings.Contains(spec.Schedule, "TZ") {
		return timetable{}, &fault{reasonUnsupportedSchedule, fmt.Sprintf("The schedule %q names a time zone: write it into spec.timeZone.", spec.Schedule)}
	}
	zone := local
	if spec.TimeZone != nil {
		var err error
		if zone, err = time.LoadLocation(*spec.TimeZone); err != nil || *spec.TimeZone == "" || strings.EqualFold(*spec.TimeZone, "Local") {
			return timetable{}, &fault{reasonUnknownTimeZone, fmt.Sprintf("The time zone %q isn't known: write a name such as Europe/Zurich into spec.timeZone.", *spec.TimeZone)}
		}
	}
	schedule, err := parse(spec.Schedule)
	if err != nil {
		return timetable{}, &fault{reasonUnparseableSchedule, fmt.Sprintf("The schedule %q can't be read: %v.", spec.Schedule, err)}
	}
	switch schedule := schedule.(type) {
	case cron.ConstantDelaySchedule:
		return timetable{schedule: schedule, every: schedule.Delay}, nil
	case *cron.SpecSchedule:
		schedule.Location = zone
	}
	return timetable{schedule: schedule}, nil
}

// parse is cron.ParseStandard, which panics on a few strings.
func parse(line string) (schedule cron.Schedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it has another form than five fields or a macro")
		}
	}()
	return cron.ParseStandard(line)
}

// last returns the latest time of the schedule after since and not after now; zero when there is none.
func (t timetable) last(since, now time.Time) time.Time {
	if t.every > 0 {
		since = since.Truncate(time.Second)
		n := now.Sub(since) / t.every
		if n < 1 {
			return time.Time{}
		}
		return since.Add(n * t.every)
	}
	due := func(from time.Time) bool {
		next := t.schedule.Next(from)
		return !next.IsZero() && !next.After(now)
	}
	if !due(since) {
		return time.Time{}
	}
	// due holds before the wanted time and doesn't from it on. Upstream estimates with the distance of the first two times, and loses
	// the last one when the times are uneven.
	low, high := since, now
	for high.Sub(low) > time.Second {
		middle := low.Add(high.Sub(low) / 2)
		if due(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return t.schedule.Next(low)
}

// next returns the first time after now, for a schedule of which since was the last run (or its beginning); zero when there is none.
func (t timetable) next(since, now time.Time) time.Time {
	if t.every > 0 {
		if last := t.last(since, now); !last.IsZero() {
			since = last
		}
		return since.Truncate(time.Second).Add(t.every)
	}
	return t.schedule.Next(later(since, now))
}

// missedMany says whether more than manyMissed times lie after since and not after now.
func (t timetable) missedMany(since, now time.Time) bool {
	if t.every > 0 {
		return now.Sub(since)/t.every > manyMissed
	}
	for range manyMissed + 1 {
		since = t.schedule.Next(since)
		if since.IsZero() || since.After(now) {
			return false
		}
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
