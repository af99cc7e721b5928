// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Reasons of the condition Stalled of a service, for which its dataplane must leave something out.
const (
	// ReasonIPConflict: the address that the user chose belongs to another service.
	ReasonIPConflict = "IPConflict"
	// ReasonInvalidIP: the address that the user chose is none of the service range.
	ReasonInvalidIP = "InvalidIP"
	// ReasonPortConflict: the node port that the user chose belongs to another service.
	ReasonPortConflict = "NodePortConflict"
)

// Stalled returns the reason for which a service is stalled, or an empty string.
func Stalled(service *pcorev1.Service) string {
	for i := range service.Status.Conditions {
		c := &service.Status.Conditions[i]
		if c.Type == pcorev1.ConditionStalled && c.Status == metav1.ConditionTrue {
			return c.Reason
		}
	}
	return ""
}
