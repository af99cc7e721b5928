// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// conditions of a service are of the general type.
var conditions = condition.Codec[metav1.Condition]{
	From: func(c metav1.Condition) condition.Condition {
		return condition.Condition{Type: c.Type, Status: corev1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
	},
	To: func(c condition.Condition) metav1.Condition {
		return metav1.Condition{Type: c.Type, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
	},
}

// makeStatus computes the whole status. The load balancer's part belongs to whoever provides load balancers.
func makeStatus(service *pcorev1.Service, verdict condition.Verdict, now time.Time) pcorev1.ServiceStatus {
	status := *service.Status.DeepCopy()
	status.ObservedGeneration = service.Generation
	status.Conditions = conditions.SetVerdict(status.Conditions, verdict, now)
	status.Columns = pcorev1.Columns{
		"externalIP": externalIP(service),
		"ports":      formatPorts(service.Spec.Ports),
		"selector":   labels.FormatLabels(service.Spec.Selector),
	}
	return status
}

const none = "<none>"

// externalIP is kubectl's column EXTERNAL-IP.
func externalIP(service *pcorev1.Service) string {
	switch service.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return service.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var all []string
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			if ingress.IP != "" {
				all = append(all, ingress.IP)
			} else if ingress.Hostname != "" {
				all = append(all, ingress.Hostname)
			}
		}
		all = append(all, service.Spec.ExternalIPs...)
		if len(all) == 0 {
			return "<pending>"
		}
		return strings.Join(all, ",")
	}
	if len(service.Spec.ExternalIPs) > 0 {
		return strings.Join(service.Spec.ExternalIPs, ",")
	}
	return none
}

// formatPorts is kubectl's column PORT(S).
func formatPorts(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return none
	}
	parts := make([]string, len(ports))
	for i, port := range ports {
		parts[i] = fmt.Sprintf("%d/%s", port.Port, protocolOf(port.Protocol))
		if port.NodePort > 0 {
			parts[i] = fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, protocolOf(port.Protocol))
		}
	}
	return strings.Join(parts, ",")
}
