// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// ServiceAccountName is the account that a pod runs as: upstream's admission fills the default one in, and custom resources have no such
// admission.
func ServiceAccountName(pod *pcorev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" {
		return pod.Spec.ServiceAccountName
	}
	if pod.Spec.DeprecatedServiceAccount != "" {
		return pod.Spec.DeprecatedServiceAccount
	}
	return "default"
}

// PullSecrets are the names of an account's pull secrets.
func PullSecrets(account *corev1.ServiceAccount) []string {
	var out []string
	for _, ref := range account.ImagePullSecrets {
		if ref.Name != "" {
			out = append(out, ref.Name)
		}
	}
	return out
}
