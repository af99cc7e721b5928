// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"time"

	"sigs.k8s.io/yaml"
)

// Nobody waits for a minute here: a CronJob is made suspended, its status is made to say that it last ran long ago, and then it
// is resumed, so that one run is overdue.

// scheduledFrom is when the schedules of both sides count from: a minute that ended between the two would be a difference.
var scheduledFrom = time.Now()

// oncePast is a schedule of one time a day, which was some minutes ago.
func oncePast(ago time.Duration) string {
	at := scheduledFrom.UTC().Add(-ago)
	return fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour())
}

// hourly is a schedule of one time an hour, the last some minutes ago.
func hourly(ago time.Duration) string {
	return fmt.Sprintf("%d * * * *", scheduledFrom.UTC().Add(-ago).Minute())
}

// missed makes a CronJob that last ran so long ago.
func (s *script) missed(schedule string, lastRun time.Duration, changes ...string) {
	s.create(cronJob("tick", schedule, append([]string{"spec: {suspend: true, timeZone: Etc/UTC}"}, changes...)...))
	s.resume(lastRun)
}

// resume makes the suspended CronJob believe that it last ran so long ago, on its present schedule, and lets it go on.
func (s *script) resume(lastRun time.Duration) {
	last := time.Now().UTC().Add(-lastRun).Format(time.RFC3339)
	status := map[string]any{"lastScheduleTime": last}
	if s.side.ours {
		// Ours notes since when a schedule holds, and starts no run of before.
		s.wait("cronjob/tick", observed, tells("Scheduled", "True", ""))
		conditions, _ := object{s.get("cronjob/tick").DeepCopy()}.at("status.conditions").([]any)
		for _, c := range conditions {
			c.(map[string]any)["lastTransitionTime"] = last
		}
		status["conditions"] = conditions
	}
	raw, err := yaml.Marshal(map[string]any{"status": status})
	must(err)
	s.patch("cronjob/tick", string(raw), "status")
	s.patch("cronjob/tick", "spec: {suspend: false}")
}

// jobs waits until there are that many Jobs.
func (s *script) jobs(n int) []object {
	var out []object
	s.await(fmt.Sprintf("there are %d jobs", n), func() string {
		out = s.list("job")
		return lengthIs(out, n)
	})
	return out
}

// again makes the next run overdue, on a schedule of one time that has just passed.
func (s *script) again(ago time.Duration) {
	s.patch("cronjob/tick", fmt.Sprintf("spec: {suspend: true, schedule: %q}", oncePast(ago)))
	s.resume(12 * time.Hour)
}

func activeJobs(n int) condition {
	return func(o object) string {
		list, _ := o.at("status.active").([]any)
		if len(list) != n {
			return fmt.Sprintf("%d are active", len(list))
		}
		return ""
	}
}

var cronJobScenarios = []scenario{
	{"cronjob/created, not due", func(s *script) {
		s.create(cronJob("tick", oncePast(3*time.Hour)))
	}},
	{"cronjob/suspended", func(s *script) {
		s.create(cronJob("tick", "* * * * *", "spec: {suspend: true}"))
	}},
	{"cronjob/a missed run starts", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour)
		s.jobs(1)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
		s.wait("job/"+s.list("job")[0].GetName(), tallies("active=1 ready=1"))
	}},
	{"cronjob/a run ends well", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour)
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/"+s.jobs(1)[0].GetName(), finished(1), tracked)
		s.wait("cronjob/tick", activeJobs(0), func(o object) string {
			if o.at("status.lastSuccessfulTime") == nil {
				return "no success is noted"
			}
			return ""
		})
	}},
	{"cronjob/a run fails", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour, "spec: {jobTemplate: {spec: {backoffLimit: 0}}}")
		s.exit(1, s.waitPods(1, started)...)
		s.wait("job/"+s.jobs(1)[0].GetName(), failed("BackoffLimitExceeded"), tracked)
		s.wait("cronjob/tick", activeJobs(0))
	}},
	{"cronjob/a run that is missed by too much", func(s *script) {
		s.missed(oncePast(10*time.Minute), 12*time.Hour, "spec: {startingDeadlineSeconds: 60}")
		s.wait("cronjob/tick", where("spec.suspend", "false"))
	}},
	{"cronjob/a run within the deadline", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour, "spec: {startingDeadlineSeconds: 600}")
		s.jobs(1)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/of many missed runs the last starts", func(s *script) {
		s.missed(hourly(3*time.Minute), 6*time.Hour)
		s.jobs(1)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/too many missed runs", func(s *script) {
		s.missed(hourly(3*time.Minute), 6*24*time.Hour)
		s.jobs(1)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/Forbid", func(s *script) {
		s.missed(oncePast(6*time.Minute), 12*time.Hour, "spec: {concurrencyPolicy: Forbid}")
		s.jobs(1)
		s.wait("cronjob/tick", activeJobs(1))
		s.again(3 * time.Minute)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/Replace", func(s *script) {
		s.missed(oncePast(6*time.Minute), 12*time.Hour, "spec: {concurrencyPolicy: Replace}")
		old := s.jobs(1)[0]
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
		s.again(3 * time.Minute)
		s.gone("job/" + old.GetName())
		s.jobs(1)
		s.waitPods(1, started)
		s.waitPods(1)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/Allow", func(s *script) {
		s.missed(oncePast(6*time.Minute), 12*time.Hour)
		s.jobs(1)
		s.wait("cronjob/tick", activeJobs(1))
		s.again(3 * time.Minute)
		s.jobs(2)
		s.waitPods(2, started)
		s.wait("cronjob/tick", activeJobs(2))
	}},
	{"cronjob/history limits", func(s *script) {
		s.missed(oncePast(30*time.Minute), 12*time.Hour, "spec: {successfulJobsHistoryLimit: 1, failedJobsHistoryLimit: 0, jobTemplate: {spec: {backoffLimit: 0}}}")
		first := s.jobs(1)[0].GetName()
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/"+first, finished(1))
		s.again(20 * time.Minute)
		s.exit(0, s.waitPods(1, started)...)
		s.gone("job/" + first)
		s.wait("cronjob/tick", activeJobs(0))
		s.again(10 * time.Minute)
		s.exit(1, s.waitPods(1, started)...)
		s.wait("cronjob/tick", activeJobs(0))
		s.jobs(1)
	}},
	{"cronjob/history limit zero", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour, "spec: {successfulJobsHistoryLimit: 0}")
		s.exit(0, s.waitPods(1, started)...)
		s.jobs(0)
		s.waitPods(0)
		s.wait("cronjob/tick", activeJobs(0))
	}},
	{"cronjob/time zone", func(s *script) {
		zone, err := time.LoadLocation("Asia/Kolkata")
		must(err)
		at := scheduledFrom.In(zone).Add(-3 * time.Minute)
		s.missed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), 12*time.Hour, "spec: {timeZone: Asia/Kolkata}")
		s.jobs(1)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
	}},
	{"cronjob/an active job is deleted", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour)
		s.wait("cronjob/tick", activeJobs(1))
		s.deleteGone("job/"+s.jobs(1)[0].GetName(), background)
		s.waitPods(0)
		s.wait("cronjob/tick", activeJobs(0))
	}},
	{"cronjob/delete", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour)
		s.waitPods(1, started)
		s.deleteGone("cronjob/tick", background)
		s.jobs(0)
		s.waitPods(0)
	}},
	{"cronjob/delete, orphaning", func(s *script) {
		s.missed(oncePast(3*time.Minute), 12*time.Hour)
		s.waitPods(1, started)
		s.wait("cronjob/tick", activeJobs(1))
		s.deleteGone("cronjob/tick", orphan)
		s.await("the job has no owner", func() string {
			if owners := s.jobs(1)[0].GetOwnerReferences(); len(owners) > 0 {
				return "it has"
			}
			return ""
		})
	}},
	{"cronjob/the template changes", func(s *script) {
		s.missed(oncePast(6*time.Minute), 12*time.Hour)
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/"+s.jobs(1)[0].GetName(), finished(1))
		s.patch("cronjob/tick", "spec: {jobTemplate: {metadata: {annotations: {team: b}}, spec: {completions: 2, parallelism: 2}}}")
		s.again(3 * time.Minute)
		s.exit(0, s.waitPods(2, started)...)
		s.wait("job/"+s.jobs(2)[1].GetName(), finished(2))
		s.wait("cronjob/tick", activeJobs(0))
	}},
}
