// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
)

// The values of the label endpointslice.kubernetes.io/managed-by: whoever makes slices by hand uses another one, and
// those are left alone.
const (
	// ManagedByPods marks slices that are made from pods.
	ManagedByPods = "endpointslice-controller.pinnace.dev"
	// ManagedByMirror marks slices that are made from a hand-made Endpoints object.
	ManagedByMirror = "endpointslicemirroring-controller.pinnace.dev"
)

// MaxPerSlice is how many endpoints a slice holds at most, as upstream's default has it: a change then rewrites at most
// that many.
const MaxPerSlice = 100

// Changes bring the slices of a service to what they should be. Their objects are new ones or copies.
type Changes struct {
	Create, Update, Delete []*pdiscoveryv1.EndpointSlice
}

// Empty says that there is nothing to do.
func (c Changes) Empty() bool { return len(c.Create)+len(c.Update)+len(c.Delete) == 0 }

// Shrinks says whether the changes take traffic away from an endpoint that has it now.
func Shrinks(existing []*pdiscoveryv1.EndpointSlice, changes Changes) bool {
	ready := map[string]bool{}
	count := func(s *pdiscoveryv1.EndpointSlice, value bool) {
		for i := range s.Endpoints {
			if r := s.Endpoints[i].Conditions.Ready; r == nil || *r {
				ready[endpointKey(s.Endpoints[i])] = value
			}
		}
	}
	after := map[string]*pdiscoveryv1.EndpointSlice{}
	for _, s := range existing {
		count(s, false)
		after[s.Name] = s
	}
	for _, s := range slices.Concat(changes.Create, changes.Update) {
		after[s.Name] = s
	}
	for _, s := range changes.Delete {
		delete(after, s.Name)
	}
	for _, s := range after {
		count(s, true)
	}
	for _, still := range ready {
		if !still {
			return true
		}
	}
	return false
}

// Plan lists the pods that a service's selector matches. existing are the slices of the service that carry
// ManagedByPods; zones are the nodes' zones by the node's name.
func Plan(service *pcorev1.Service, pods []*pcorev1.Pod, existing []*pdiscoveryv1.EndpointSlice, zones map[string]string) Changes {
	wanted := map[discoveryv1.AddressType]*family{}
	for _, addressType := range AddressTypes(service) {
		f := &family{groups: map[string]*group{}, placeholder: true}
		wanted[addressType] = f
		for _, pod := range pods {
			if !Belongs(pod) {
				continue
			}
			endpoint, ok := endpointOf(service, pod, addressType, zones)
			if !ok {
				continue
			}
			f.add(portsOf(service, pod), string(pod.UID), endpoint)
		}
	}
	return plan(service, ManagedByPods, wanted, existing)
}

// family is what is wanted of one address type.
type family struct {
	groups map[string]*group
	// placeholder asks for an empty slice when there would be none, which tells "nobody there" from "not looked at yet".
	placeholder bool
}

// group are endpoints with equal ports: only those can share a slice.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints map[string]discoveryv1.Endpoint // by the target's UID, or the address
}

func (f *family) add(ports []discoveryv1.EndpointPort, key string, endpoint discoveryv1.Endpoint) {
	id := portsKey(ports)
	g := f.groups[id]
	if g == nil {
		g = &group{ports: ports, endpoints: map[string]discoveryv1.Endpoint{}}
		f.groups[id] = g
	}
	g.endpoints[key] = endpoint
}

// portsKey is equal for equal sets of ports.
func portsKey(ports []discoveryv1.EndpointPort) string {
	keys := make([]string, len(ports))
	for i, p := range ports {
		data, err := json.Marshal(p)
		if err != nil {
			panic(err) // strings and numbers
		}
		keys[i] = string(data)
	}
	slices.Sort(keys)
	return fmt.Sprint(keys)
}

func endpointKey(e discoveryv1.Endpoint) string {
	if e.TargetRef != nil && e.TargetRef.UID != "" {
		return string(e.TargetRef.UID)
	}
	return fmt.Sprint(e.Addresses)
}

// plan brings existing slices to the wanted groups with few writes: endpoints stay in the slice in which they are.
func plan(service *pcorev1.Service, manager string, wanted map[discoveryv1.AddressType]*family, existing []*pdiscoveryv1.EndpointSlice) Changes {
	var changes Changes
	byType := map[discoveryv1.AddressType][]*pdiscoveryv1.EndpointSlice{}
	names := map[string]bool{}
	for _, slice := range existing {
		names[slice.Name] = true
		if slice.DeletionTimestamp != nil {
			continue
		}
		// Slices of an earlier service of the same name are being collected as garbage; they are no use.
		if !metav1.IsControlledBy(slice, service) || wanted[slice.AddressType] == nil {
			changes.Delete = append(changes.Delete, slice)
			continue
		}
		byType[slice.AddressType] = append(byType[slice.AddressType], slice)
	}
	for _, addressType := range slices.Sorted(maps.Keys(wanted)) {
		p := &typePlan{service: service, manager: manager, addressType: addressType, names: names}
		p.run(wanted[addressType], byType[addressType])
		changes.Create = append(changes.Create, p.changes.Create...)
		changes.Update = append(changes.Update, p.changes.Update...)
		changes.Delete = append(changes.Delete, p.changes.Delete...)
	}
	return changes
}

// typePlan is the plan of one address type.
type typePlan struct {
	service     *pcorev1.Service
	manager     string
	addressType discoveryv1.AddressType
	names       map[string]bool
	changes     Changes
}

// draft is a slice in the making; original is nil for a new one.
type draft struct {
	original  *pdiscoveryv1.EndpointSlice
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
	changed   bool
}

func (p *typePlan) run(wanted *family, existing []*pdiscoveryv1.EndpointSlice) {
	slices.SortFunc(existing, func(a, b *pdiscoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	byPorts := map[string][]*pdiscoveryv1.EndpointSlice{}
	var unused []*pdiscoveryv1.EndpointSlice
	for _, slice := range existing {
		id := portsKey(slice.Ports)
		if wanted.groups[id] == nil {
			unused = append(unused, slice)
			continue
		}
		byPorts[id] = append(byPorts[id], slice)
	}
	var drafts []*draft
	for _, id := range slices.Sorted(maps.Keys(wanted.groups)) {
		kept, emptied := fill(wanted.groups[id], byPorts[id])
		drafts = append(drafts, kept...)
		unused = append(unused, emptied...)
	}
	if len(drafts) == 0 && wanted.placeholder {
		drafts = append(drafts, &draft{ports: []discoveryv1.EndpointPort{}})
	}
	p.emit(drafts, unused)
}

// fill spreads a group over its slices: who is in one stays there, newcomers go where a write is due anyway, then where
// there is room, then into new slices. Slices that end up empty are returned apart.
func fill(g *group, existing []*pdiscoveryv1.EndpointSlice) (drafts []*draft, emptied []*pdiscoveryv1.EndpointSlice) {
	placed := map[string]bool{}
	for _, slice := range existing {
		d := &draft{original: slice, ports: slice.Ports}
		for _, old := range slice.Endpoints {
			key := endpointKey(old)
			fresh, ok := g.endpoints[key]
			if !ok || placed[key] {
				d.changed = true
				continue
			}
			placed[key] = true
			d.endpoints = append(d.endpoints, fresh)
			d.changed = d.changed || !equality.Semantic.DeepEqual(old, fresh)
		}
		drafts = append(drafts, d)
	}
	var newcomers []discoveryv1.Endpoint
	for _, key := range slices.SortedFunc(maps.Keys(g.endpoints), func(a, b string) int {
		return cmp.Or(cmp.Compare(nameOf(g.endpoints[a]), nameOf(g.endpoints[b])), cmp.Compare(a, b))
	}) {
		if !placed[key] {
			newcomers = append(newcomers, g.endpoints[key])
		}
	}
	for _, pass := range []func(*draft) bool{
		func(d *draft) bool { return d.changed },
		func(d *draft) bool { return !d.changed && len(d.endpoints) > 0 },
	} {
		for _, d := range drafts {
			if len(newcomers) > 0 && pass(d) {
				newcomers = d.take(newcomers)
			}
		}
	}
	for len(newcomers) > 0 {
		d := &draft{ports: g.ports}
		newcomers = d.take(newcomers)
		drafts = append(drafts, d)
	}
	drafts = slices.DeleteFunc(drafts, func(d *draft) bool {
		if len(d.endpoints) > 0 {
			return false
		}
		emptied = append(emptied, d.original)
		return true
	})
	return drafts, emptied
}

func nameOf(e discoveryv1.Endpoint) string {
	if e.TargetRef != nil {
		return e.TargetRef.Name
	}
	return ""
}

// take fills the draft up and returns who is left.
func (d *draft) take(newcomers []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	n := min(MaxPerSlice-len(d.endpoints), len(newcomers))
	if n <= 0 {
		return newcomers
	}
	d.endpoints = append(d.endpoints, newcomers[:n]...)
	d.changed = true
	return newcomers[n:]
}

// emit turns drafts into changes. A new slice takes the place of one that is unused: one write in place of two.
func (p *typePlan) emit(drafts []*draft, unused []*pdiscoveryv1.EndpointSlice) {
	for _, d := range drafts {
		if d.original == nil && len(unused) > 0 {
			d.original, unused = unused[0], unused[1:]
			d.changed = !equality.Semantic.DeepEqual(d.ports, d.original.Ports) || len(d.endpoints)+len(d.original.Endpoints) > 0
		}
		if d.original == nil {
			p.changes.Create = append(p.changes.Create, p.newSlice(d))
			continue
		}
		labels := p.labels()
		if !d.changed && maps.Equal(labels, d.original.Labels) {
			continue
		}
		updated := d.original.DeepCopy()
		updated.Labels, updated.Ports, updated.Endpoints = labels, d.ports, nonNil(d.endpoints)
		p.changes.Update = append(p.changes.Update, updated)
	}
	p.changes.Delete = append(p.changes.Delete, unused...)
}

func (p *typePlan) newSlice(d *draft) *pdiscoveryv1.EndpointSlice {
	return &pdiscoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.service.Namespace, Name: p.freeName(), Labels: p.labels(),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p.service, pcorev1.GroupVersion.WithKind("Service"))},
		},
		AddressType: p.addressType, Ports: d.ports, Endpoints: nonNil(d.endpoints),
	}
}

// freeName is the same for the same service and the same slices, so that a create that is repeated makes no second slice.
func (p *typePlan) freeName() string {
	hash := fnv.New32a()
	fmt.Fprintf(hash, "%s/%s/%s", p.service.UID, p.manager, p.addressType)
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s-%08x-%d", p.service.Name, hash.Sum32(), n)
		if !p.names[name] {
			p.names[name] = true
			return name
		}
	}
}

// labels are the service's own, and those that say whose slice it is.
func (p *typePlan) labels() map[string]string {
	labels := map[string]string{}
	for key, value := range p.service.Labels {
		switch key {
		case discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy, corev1.IsHeadlessService:
		default:
			labels[key] = value
		}
	}
	if p.service.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[discoveryv1.LabelServiceName] = p.service.Name
	labels[discoveryv1.LabelManagedBy] = p.manager
	return labels
}

// nonNil keeps the list in the object's JSON: it is required there.
func nonNil(endpoints []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	if endpoints == nil {
		return []discoveryv1.Endpoint{}
	}
	return endpoints
}
