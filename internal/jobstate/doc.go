// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package jobstate holds what a Job's controller decides about single pods and sets of indexes: which indexes are done, how a pod ended
// and what the failure policy makes of it, whether the success policy is met, and how long to wait before the next try. It is pure:
// pods and times come in, decisions go out. The controllers of batch may enter.
package jobstate
