// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

// The keys of status.columns, by kind: what kubectl's column of the same name shows for the upstream kind, where a
// JSONPath can't compute it. Whoever writes a kind's status writes its keys in the same request:
//
//	Pod                                  ready, status, restarts, readinessGates
//	Node                                 status, roles
//	Service                              externalIP, ports, selector
//	PersistentVolume                     accessModes, status, claim
//	PersistentVolumeClaim                accessModes, status
//	ResourceQuota                        request, limit
//	Deployment                           ready, containers, images, selector
//	ReplicaSet, ReplicationController    containers, images, selector
//	StatefulSet                          ready, containers, images
//	DaemonSet                            nodeSelector, containers, images, selector
//	Job                                  status, completions, duration, containers, images, selector
//	CronJob                              active, containers, images, selector
//	HorizontalPodAutoscaler              reference, targets
//	Ingress                              hosts, address, ports
//	NetworkPolicy                        podSelector
//
// Kinds without a status have annotations columns.pinnace.dev/<key>, which an admission policy writes.
const (
	ColumnAccessModes    = "accessModes"    // RWO,ROX
	ColumnActive         = "active"         // the number of running jobs: 0
	ColumnAddress        = "address"        // the load balancer's addresses, joined by commas
	ColumnClaim          = "claim"          // namespace/name
	ColumnCompletions    = "completions"    // 1/3
	ColumnContainers     = "containers"     // the template's container names, joined by commas
	ColumnDuration       = "duration"       // 2m3s
	ColumnExternalIP     = "externalIP"     // addresses, <none> or <pending>
	ColumnHosts          = "hosts"          // the rules' hosts, or *
	ColumnImages         = "images"         // the template's images, joined by commas
	ColumnLimit          = "limit"          // limits.cpu: 1/2
	ColumnNodeSelector   = "nodeSelector"   // disk=ssd or <none>
	ColumnPodSelector    = "podSelector"    // app=web or <none>
	ColumnPorts          = "ports"          // 80/TCP,443:30443/TCP
	ColumnReadinessGates = "readinessGates" // 1/2 or <none>
	ColumnReady          = "ready"          // 1/2
	ColumnReference      = "reference"      // Deployment/web
	ColumnRequest        = "request"        // requests.cpu: 1/2
	ColumnRestarts       = "restarts"       // 3 (5m ago)
	ColumnRoles          = "roles"          // worker or <none>
	ColumnSelector       = "selector"       // app=web or <none>
	ColumnStatus         = "status"         // Running, CrashLoopBackOff, Terminating, Ready,SchedulingDisabled
	ColumnTargets        = "targets"        // cpu: 40%/80%
)

// ColumnAnnotationPrefix begins the annotations that hold columns of kinds without a status.
const ColumnAnnotationPrefix = "columns.pinnace.dev/"
