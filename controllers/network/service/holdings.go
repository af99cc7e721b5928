// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// Indexes of services by what they hold.
const (
	byClusterIP = "pinnace.clusterIP"
	byNodePort  = "pinnace.nodePort"
)

// clusterIPs are the addresses of a service, in their standard form.
func clusterIPs(service *pcorev1.Service) []string {
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	texts := service.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{service.Spec.ClusterIP}
	}
	var ips []string
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			ips = append(ips, addr.String())
		}
	}
	return ips
}

func (p nodePort) String() string { return string(p.protocol) + "/" + strconv.Itoa(int(p.port)) }

func nodePorts(service *pcorev1.Service) []string {
	if !exposed(&service.Spec) {
		return nil
	}
	var ports []string
	for _, port := range service.Spec.Ports {
		if port.NodePort != 0 {
			ports = append(ports, nodePort{protocolOf(port.Protocol), port.NodePort}.String())
		}
	}
	return ports
}

// addIndexes declares the indexes; they must be there before the cache starts.
func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for field, values := range map[string]func(*pcorev1.Service) []string{byClusterIP: clusterIPs, byNodePort: nodePorts} {
		err := indexer.IndexField(ctx, &pcorev1.Service{}, field, func(obj client.Object) []string {
			service, ok := obj.(*pcorev1.Service)
			if !ok {
				return nil
			}
			return values(service)
		})
		if err != nil {
			return fmt.Errorf("indexing services by %s: %w", field, err)
		}
	}
	return nil
}

// forgetAfter is how long a holding is believed of a service that the cache doesn't show: longer than any cache lags.
const forgetAfter = 30 * time.Second

// holdings answers who holds an address or a node port: the cache's services, and what was given out since. It is safe
// for concurrent use.
type holdings struct {
	client client.Reader
	live   client.Reader

	mu     sync.Mutex
	seeded bool
	// recent are own writes, by "ip <address>" or "port <port>".
	recent map[string]holding
}

type holding struct {
	service *pcorev1.Service
	at      time.Time
}

func newHoldings(c, live client.Reader) *holdings {
	return &holdings{client: c, live: live, recent: map[string]holding{}}
}

// seed reads all services past the cache, once.
func (h *holdings) seed(ctx context.Context, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seeded {
		return nil
	}
	var list pcorev1.ServiceList
	if err := h.live.List(ctx, &list); err != nil {
		return fmt.Errorf("reading all services before the first address is given out: %w", err)
	}
	for i := range list.Items {
		h.note(&list.Items[i], now)
	}
	h.seeded = true
	return nil
}

// wrote notes what a service holds after a write.
func (h *holdings) wrote(service *pcorev1.Service, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(service, now)
}

func (h *holdings) note(service *pcorev1.Service, now time.Time) {
	slim := &pcorev1.Service{TypeMeta: service.TypeMeta}
	slim.Namespace, slim.Name, slim.UID, slim.ResourceVersion = service.Namespace, service.Name, service.UID, service.ResourceVersion
	for _, ip := range clusterIPs(service) {
		h.recent["ip "+ip] = holding{slim, now}
	}
	for _, port := range nodePorts(service) {
		h.recent["port "+port] = holding{slim, now}
	}
}

// gone forgets what a deleted service held.
func (h *holdings) gone(uid types.UID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, entry := range h.recent {
		if entry.service.UID == uid {
			delete(h.recent, key)
		}
	}
}

// holder returns a service other than self that holds the value.
func (h *holdings) holder(ctx context.Context, self *pcorev1.Service, field, kind, value string, now time.Time) (types.NamespacedName, bool, error) {
	var list pcorev1.ServiceList
	if err := h.client.List(ctx, &list, client.MatchingFields{field: value}, client.UnsafeDisableDeepCopy); err != nil {
		return types.NamespacedName{}, false, fmt.Errorf("looking for who holds %s: %w", value, err)
	}
	selfHolds := slices.Contains(held(self), value)
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID != self.UID && (!selfHolds || precedes(other, self)) {
			return client.ObjectKeyFromObject(other), true, nil
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	entry, ok := h.recent[kind+" "+value]
	if !ok || entry.service.UID == self.UID {
		return types.NamespacedName{}, false, nil
	}
	key := client.ObjectKeyFromObject(entry.service)
	var cached pcorev1.Service
	err := h.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy)
	switch {
	case err == nil && cached.UID == entry.service.UID && kube.Older(&cached, entry.service):
		return key, true, nil // The cache has yet to show it.
	case apierrors.IsNotFound(err) && now.Sub(entry.at) < forgetAfter:
		return key, true, nil
	case err != nil && !apierrors.IsNotFound(err):
		return types.NamespacedName{}, false, fmt.Errorf("looking for who holds %s: %w", value, err)
	}
	delete(h.recent, kind+" "+value) // The index tells the truth by now.
	return types.NamespacedName{}, false, nil
}

// held are all addresses and node ports of a service, as the indexes have them.
func held(service *pcorev1.Service) []string {
	return append(clusterIPs(service), nodePorts(service)...)
}

// precedes says which of two services that name the same address or port keeps it: who has been told that it serves, then
// the older one.
func precedes(other, self *pcorev1.Service) bool {
	otherServes, selfServes := serves(other), serves(self)
	switch {
	case otherServes != selfServes:
		return otherServes
	case !other.CreationTimestamp.Equal(&self.CreationTimestamp):
		return other.CreationTimestamp.Before(&self.CreationTimestamp)
	}
	return other.UID < self.UID
}

// serves says whether the service was found in order before: its conflicts, if any, came later.
func serves(service *pcorev1.Service) bool {
	ready, ok := conditions.Get(service.Status.Conditions, pcorev1.ConditionReady)
	return ok && (ready.Reason == ReasonServing || ready.Reason == ReasonLoadBalancerPending)
}
