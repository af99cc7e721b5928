// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package condition

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Codecs of the kinds that have conditions of their own type.
var (
	// Deployment is for apps/v1 Deployment.
	Deployment = Codec[appsv1.DeploymentCondition]{
		From: func(c appsv1.DeploymentCondition) Condition {
			return Condition{string(c.Type), c.Status, c.Reason, c.Message, c.LastUpdateTime, c.LastTransitionTime}
		},
		To: func(c Condition) appsv1.DeploymentCondition {
			return appsv1.DeploymentCondition{
				Type: appsv1.DeploymentConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastUpdateTime: c.LastUpdateTime, LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// ReplicaSet is for apps/v1 ReplicaSet.
	ReplicaSet = Codec[appsv1.ReplicaSetCondition]{
		From: func(c appsv1.ReplicaSetCondition) Condition {
			return Condition{Type: string(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
		},
		To: func(c Condition) appsv1.ReplicaSetCondition {
			return appsv1.ReplicaSetCondition{
				Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// StatefulSet is for apps/v1 StatefulSet.
	StatefulSet = Codec[appsv1.StatefulSetCondition]{
		From: func(c appsv1.StatefulSetCondition) Condition {
			return Condition{Type: string(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
		},
		To: func(c Condition) appsv1.StatefulSetCondition {
			return appsv1.StatefulSetCondition{
				Type: appsv1.StatefulSetConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// DaemonSet is for apps/v1 DaemonSet.
	DaemonSet = Codec[appsv1.DaemonSetCondition]{
		From: func(c appsv1.DaemonSetCondition) Condition {
			return Condition{Type: string(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
		},
		To: func(c Condition) appsv1.DaemonSetCondition {
			return appsv1.DaemonSetCondition{
				Type: appsv1.DaemonSetConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// ReplicationController is for v1 ReplicationController.
	ReplicationController = Codec[corev1.ReplicationControllerCondition]{
		From: func(c corev1.ReplicationControllerCondition) Condition {
			return Condition{Type: string(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
		},
		To: func(c Condition) corev1.ReplicationControllerCondition {
			return corev1.ReplicationControllerCondition{
				Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// Job is for batch/v1 Job. LastProbeTime takes LastUpdateTime's place.
	Job = Codec[batchv1.JobCondition]{
		From: func(c batchv1.JobCondition) Condition {
			return Condition{string(c.Type), c.Status, c.Reason, c.Message, c.LastProbeTime, c.LastTransitionTime}
		},
		To: func(c Condition) batchv1.JobCondition {
			return batchv1.JobCondition{
				Type: batchv1.JobConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastProbeTime: c.LastUpdateTime, LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// Pod is for v1 Pod.
	Pod = Codec[corev1.PodCondition]{
		From: func(c corev1.PodCondition) Condition {
			return Condition{Type: string(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
		},
		To: func(c Condition) corev1.PodCondition {
			return corev1.PodCondition{
				Type: corev1.PodConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
	// Node is for v1 Node. LastHeartbeatTime takes LastUpdateTime's place.
	Node = Codec[corev1.NodeCondition]{
		From: func(c corev1.NodeCondition) Condition {
			return Condition{string(c.Type), c.Status, c.Reason, c.Message, c.LastHeartbeatTime, c.LastTransitionTime}
		},
		To: func(c Condition) corev1.NodeCondition {
			return corev1.NodeCondition{
				Type: corev1.NodeConditionType(c.Type), Status: c.Status, Reason: c.Reason, Message: c.Message,
				LastHeartbeatTime: c.LastUpdateTime, LastTransitionTime: c.LastTransitionTime,
			}
		},
	}
)
