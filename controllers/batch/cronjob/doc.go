// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cronjob starts a Job at each time that a CronJob's schedule names, and deletes the finished ones that its history has no
// room for. The rules are upstream's (k8s.io/kubernetes pkg/controller/cronjob). It is the only writer of a CronJob's status and the
// only maker of its runs. Only internal/setup enters.
//
// What keeps a run from being started twice, and where the process may die:
//
//	create the Job        its name is the CronJob's with the minute of its time: a second attempt meets the first
//	    ✕                 the next look finds the Job by name and annotation, and takes its time over
//	write the status      lastScheduleTime and the active list
//	    ✕
//	delete old Jobs       only those of which the stored status shows that they have run
package cronjob
