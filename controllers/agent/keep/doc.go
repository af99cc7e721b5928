// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keep decides what stays on a node and what is thrown away: images that nobody uses, when the disk fills; logs that have
// grown; what pods leave behind that are gone, such as after a power cut; and what the runtime has made and forgotten.
//
// A Keeper is a loop over four pure planners (plan_images.go, plan_logs.go, plan_leftovers.go, plan_forgotten.go). Each look starts from
// what is there, so it needs no memory but of when an image was last used. What a pod leaves when it ends in order is removed by
// controllers/agent itself; this room is the net below it.
//
// internal/setup enters.
package keep
