// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpointslice_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/knftables"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	dataplanecontroller "github.com/pinnace-dev/pinnace/controllers/network/dataplane"
	"github.com/pinnace-dev/pinnace/controllers/network/endpointslice"
	"github.com/pinnace-dev/pinnace/controllers/network/service"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
	"github.com/pinnace-dev/pinnace/test/env"
)

func TestMain(m *testing.M) { os.Exit(env.Main(m, env.WithScheme(scheme()))) }

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, pcorev1.AddToScheme, pdiscoveryv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}

// writes counts the manager's writes by method and resource.
type writes struct {
	mu    sync.Mutex
	count map[string]int
}

func (w *writes) add(r *http.Request) {
	if r.Method == http.MethodGet {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	for i, p := range parts {
		if p == "services" || p == "endpointslices" {
			w.mu.Lock()
			w.count[r.Method+" "+strings.Join(append([]string{p}, parts[min(i+2, len(parts)):]...), "/")]++
			w.mu.Unlock()
		}
	}
}

func (w *writes) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.count)
}

func (w *writes) slices() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for key, count := range w.count {
		if strings.Contains(key, "endpointslices") {
			n += count
		}
	}
	return n
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// startManager runs the network's controllers, and a node's dataplane over nftables in memory.
func startManager(t *testing.T, e *env.Env) (*writes, *knftables.Fake) {
	t.Helper()
	w := &writes{count: map[string]int{}}
	cfg := rest.CopyConfig(e.Config)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			w.add(r)
			return next.RoundTrip(r)
		})
	})
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(), Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cache.Options{DefaultTransform: kube.Slim},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	services, err := service.NewReconciler(mgr.GetClient(), mgr.GetAPIReader(), service.Options{ServiceCIDR: "10.97.0.0/16"})
	if err != nil {
		t.Fatal(err)
	}
	fake := knftables.NewFake(knftables.IPv4Family, "pinnace")
	table := dataplane.NewWith(ruleset.Config{
		Family: ruleset.IPv4, NodeName: "node-1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	}, fake)
	for _, r := range []interface{ SetupWithManager(ctrl.Manager) error }{
		services, endpointslice.NewReconciler(mgr.GetClient()), dataplanecontroller.NewReconciler(mgr.GetClient(), "node-1", table),
	} {
		if err := r.SetupWithManager(mgr); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w, fake
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func makePod(namespace, name string) *pcorev1.Pod {
	p := &pcorev1.Pod{}
	p.Namespace, p.Name, p.Labels = namespace, name, map[string]string{"app": "web"}
	p.Spec.NodeName = "node-1"
	p.Spec.Containers = []corev1.Container{{Name: "main", Image: "x", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	return p
}

func setReady(t *testing.T, c client.Client, p *pcorev1.Pod, ip string) {
	t.Helper()
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if err := c.Status().Update(context.Background(), p); err != nil {
		t.Fatal(err)
	}
}

// TestServiceFromPodsToPacketRules goes the whole way on a real API server: a service gets its address, twenty pods that
// become ready over a second and a half get into its slice with few writes, and the node's rules follow.
func TestServiceFromPodsToPacketRules(t *testing.T) {
	e := env.Start(t)
	ctx := context.Background()
	written, table := startManager(t, e)
	namespace := e.Namespace(t)

	web := &pcorev1.Service{}
	web.Namespace, web.Name = namespace, "web"
	web.Spec = corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}
	if err := e.Client.Create(ctx, web); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service has an address and says so", func() bool {
		if err := e.Client.Get(ctx, client.ObjectKeyFromObject(web), web); err != nil {
			t.Fatal(err)
		}
		return web.Spec.ClusterIP != "" && web.Status.Columns["ports"] == "80/TCP" && web.Status.ObservedGeneration == web.Generation
	})
	if web.Spec.Ports[0].TargetPort.IntValue() != 80 || web.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("defaults: %+v", web.Spec)
	}

	const count = 20
	for i := range count {
		p := makePod(namespace, fmt.Sprintf("p%d", i))
		if err := e.Client.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
		setReady(t, e.Client, p, fmt.Sprintf("10.244.1.%d", i+10))
		time.Sleep(75 * time.Millisecond) // Pods of a Deployment become ready one after the other; this is no wait for anything.
	}
	slices := func() (total, ready int) {
		var list pdiscoveryv1.EndpointSliceList
		if err := e.Client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: "web"}); err != nil {
			t.Fatal(err)
		}
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				total++
				if *endpoint.Conditions.Ready {
					ready++
				}
			}
		}
		return total, ready
	}
	eventually(t, "all pods are in the slice", func() bool { _, ready := slices(); return ready == count })
	eventually(t, "the node's rules lead to all of them", func() bool {
		dump := table.Dump()
		return strings.Contains(dump, "numgen random mod 20") && strings.Contains(dump, web.Spec.ClusterIP+" . tcp . 80")
	})
	if n := written.slices(); n > 8 {
		t.Errorf("twenty pods cost %d writes of slices", n)
	}
	t.Logf("twenty pods over 1.5 s: %s", written)

	// A pod goes.
	if err := e.Client.Delete(ctx, makePod(namespace, "p0")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone from the slice", func() bool { total, _ := slices(); return total == count-1 })
	eventually(t, "and from the rules", func() bool { return !strings.Contains(table.Dump(), "10.244.1.10 .") })

	// The service goes.
	if err := e.Client.Delete(ctx, web); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rules are gone", func() bool { return !strings.Contains(table.Dump(), web.Spec.ClusterIP) })
}

// TestHandMadeEndpoints: a service without a selector leads to where an Endpoints object says.
func TestHandMadeEndpoints(t *testing.T) {
	e := env.Start(t)
	ctx := context.Background()
	_, table := startManager(t, e)
	namespace := e.Namespace(t)
	db := &pcorev1.Service{}
	db.Namespace, db.Name = namespace, "db"
	db.Spec = corev1.ServiceSpec{ClusterIP: "10.97.5.5", Ports: []corev1.ServicePort{{Port: 5432}}}
	hand := &pcorev1.Endpoints{Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.77"}}, Ports: []corev1.EndpointPort{{Port: 5433}}}}} //nolint:staticcheck // Deprecated upstream, and still what people make by hand.
	hand.Namespace, hand.Name = namespace, "db"
	for _, obj := range []client.Object{db, hand} {
		if err := e.Client.Create(ctx, obj); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the rules lead there", func() bool { return strings.Contains(table.Dump(), "dnat to 192.0.2.77:5433") })
	if err := e.Client.Delete(ctx, hand); err != nil {
		t.Fatal(err)
	}
	eventually(t, "and no longer", func() bool { return !strings.Contains(table.Dump(), "192.0.2.77") })
}
