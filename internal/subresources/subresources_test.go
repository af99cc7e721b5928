// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, ppolicyv1.AddToScheme, corev1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// gate lets everybody in who may, and notes what was asked.
type gate struct {
	stranger, refuse bool
	asked            []string
}

func (g *gate) Authenticate(*http.Request) (*authenticationv1.UserInfo, error) {
	if g.stranger {
		return nil, apierrors.NewUnauthorized("no")
	}
	return &authenticationv1.UserInfo{Username: "ann"}, nil
}

func (g *gate) Authorize(_ context.Context, _ *authenticationv1.UserInfo, attributes ...authorizationv1.ResourceAttributes) error {
	for _, a := range attributes {
		g.asked = append(g.asked, a.Verb+" "+a.Resource+"/"+a.Subresource+"."+a.Group+" "+a.Namespace+"/"+a.Name)
	}
	if g.refuse {
		return apierrors.NewForbidden(schema.GroupResource{}, "", nil)
	}
	return nil
}

func TestEveryPathIsGuarded(t *testing.T) {
	pod := base + "/namespaces/d/pods/p/"
	for path, want := range map[string]string{
		"GET " + pod + "log":          "get pods/log.core.pinnace.dev d/p",
		"GET " + pod + "exec":         "create pods/exec.core.pinnace.dev d/p",
		"POST " + pod + "exec":        "create pods/exec.core.pinnace.dev d/p",
		"GET " + pod + "attach":       "create pods/attach.core.pinnace.dev d/p",
		"POST " + pod + "attach":      "create pods/attach.core.pinnace.dev d/p",
		"GET " + pod + "portforward":  "create pods/portforward.core.pinnace.dev d/p",
		"POST " + pod + "portforward": "create pods/portforward.core.pinnace.dev d/p",
		"POST " + pod + "eviction":    "create pods/eviction.core.pinnace.dev d/p",

		"GET " + pod + "ephemeralcontainers":   "get pods/ephemeralcontainers.core.pinnace.dev d/p",
		"PUT " + pod + "ephemeralcontainers":   "update pods/ephemeralcontainers.core.pinnace.dev d/p",
		"PATCH " + pod + "ephemeralcontainers": "patch pods/ephemeralcontainers.core.pinnace.dev d/p",
	} {
		t.Run(path, func(t *testing.T) {
			method, target, _ := strings.Cut(path, " ")
			g := &gate{refuse: true}
			answer := httptest.NewRecorder()
			New(Options{Gate: g}).Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, target, nil))
			if diff := cmp.Diff([]string{want}, g.asked); diff != "" || answer.Code != http.StatusForbidden {
				t.Errorf("answer %d, difference: %s", answer.Code, diff)
			}
		})
	}
	for _, path := range []string{"/", "/apis", "/apis/" + Group, base, pod + "log", pod + "none", "/openapi/v2"} {
		answer := httptest.NewRecorder()
		New(Options{Gate: &gate{stranger: true}}).Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if answer.Code != http.StatusUnauthorized {
			t.Errorf("%s answers a stranger with %d", path, answer.Code)
		}
	}
}

func TestChooseContainer(t *testing.T) {
	pod := &pcorev1.Pod{}
	pod.Name = "p"
	pod.Spec.Containers = []corev1.Container{{Name: "a"}}
	check := func(name, want, wantErr string) {
		t.Helper()
		got, err := chooseContainer(pod, name)
		if got != want || (err == nil) != (wantErr == "") || (err != nil && err.Error() != wantErr) {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
	check("", "a", "")
	pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}}
	check("", "a", "")
	check("i", "i", "")
	check("e", "e", "")
	check("x", "", "container x is not valid for pod p")
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "b"})
	check("", "", "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i] or one of the ephemeral containers: [e]")
	check("b", "b", "")
}

func TestTerminalQuery(t *testing.T) {
	for from, want := range map[string]string{
		"command=ls&command=-l":                    "command=ls&command=-l&error=1&output=1",
		"stdin=true&tty=true&stderr=false":         "input=1&output=1&tty=1",
		"container=c&stdout=false&stderr=1&evil=1": "error=1",
	} {
		query, err := url.ParseQuery(from)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := terminalQuery(query); err != nil || got.Encode() != want {
			t.Errorf("%s: got %s, %v, want %s", from, got.Encode(), err, want)
		}
	}
	if _, err := terminalQuery(url.Values{"tty": {"perhaps"}}); err == nil {
		t.Error("tty=perhaps was taken")
	}
}

func TestLocate(t *testing.T) {
	node := func(name string, port int32, pin string) *pcorev1.Node {
		n := &pcorev1.Node{}
		n.Name = name
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		n.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		if pin != "" {
			n.Annotations = map[string]string{access.PinAnnotation: pin}
		}
		return n
	}
	reader := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(node("plain", 10350, ""), node("pinned", 10351, "sha256/x"), node("simulated", 0, "")).Build()
	none := func() (*tls.Certificate, error) { return nil, nil }
	authorities := func() (*x509.CertPool, error) { return x509.NewCertPool(), nil }
	for _, c := range []struct {
		node        string
		authorities func() (*x509.CertPool, error)
		want, err   string
	}{
		{"plain", authorities, "https://192.0.2.1:10350/", ""},
		{"plain", nil, "", "can't be told from a stranger"},
		{"pinned", nil, "https://192.0.2.1:10351/", ""},
		{"simulated", authorities, "", "it is simulated"},
		{"none", authorities, "", "not found"},
	} {
		got, _, err := NewAgents(reader, none, c.authorities).Locate(t.Context(), c.node)
		if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) || (err == nil && got.String() != c.want) {
			t.Errorf("%s: got %v, %v", c.node, got, err)
		}
	}
}

// evictionWorld has a ready pod and its budget.
func evictionWorld(t *testing.T, allowed int32, funcs interceptor.Funcs) (client.Client, http.Handler) {
	t.Helper()
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "p", UID: "u", Labels: map[string]string{"a": "b"}}}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	one := intstr.FromInt32(1)
	budget := &ppolicyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "budget"}}
	budget.Spec.MinAvailable, budget.Spec.Selector = &one, &metav1.LabelSelector{MatchLabels: pod.Labels}
	budget.Status.DisruptionsAllowed, budget.Status.DesiredHealthy, budget.Status.CurrentHealthy = allowed, 1, 1+allowed
	c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(pod, budget).
		WithStatusSubresource(pod, budget).WithInterceptorFuncs(funcs).Build()
	return c, New(Options{Objects: c, Live: c, Client: c, Gate: &gate{}}).Handler()
}

func evict(t *testing.T, handler http.Handler, eviction policyv1.Eviction) (int, metav1.Status) {
	t.Helper()
	body, err := json.Marshal(eviction)
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, base+"/namespaces/d/pods/p/eviction", strings.NewReader(string(body))))
	var status metav1.Status
	if err := json.Unmarshal(answer.Body.Bytes(), &status); err != nil {
		t.Fatal(err)
	}
	return answer.Code, status
}

func TestEviction(t *testing.T) {
	key := client.ObjectKey{Namespace: "d", Name: "p"}
	t.Run("within the budget", func(t *testing.T) {
		c, handler := evictionWorld(t, 1, interceptor.Funcs{})
		if code, status := evict(t, handler, policyv1.Eviction{}); code != http.StatusCreated {
			t.Fatalf("got %d: %s", code, status.Message)
		}
		if err := c.Get(t.Context(), key, &pcorev1.Pod{}); !apierrors.IsNotFound(err) {
			t.Errorf("the pod is there still: %v", err)
		}
		budget := &ppolicyv1.PodDisruptionBudget{}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "d", Name: "budget"}, budget); err != nil || budget.Status.DisruptionsAllowed != 0 ||
			len(budget.Status.DisruptedPods) != 1 {
			t.Errorf("the budget says %+v, %v", budget.Status, err)
		}
	})
	t.Run("beyond the budget", func(t *testing.T) {
		c, handler := evictionWorld(t, 0, interceptor.Funcs{})
		code, status := evict(t, handler, policyv1.Eviction{})
		if code != http.StatusTooManyRequests || status.Details == nil || len(status.Details.Causes) == 0 || status.Details.Causes[0].Type != policyv1.DisruptionBudgetCause {
			t.Errorf("got %d: %+v", code, status)
		}
		if err := c.Get(t.Context(), key, &pcorev1.Pod{}); err != nil {
			t.Errorf("the pod: %v", err)
		}
	})
	t.Run("somebody else takes the last disruption at the same time", func(t *testing.T) {
		first := true
		c, handler := evictionWorld(t, 1, interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				if first {
					first = false
					other := &ppolicyv1.PodDisruptionBudget{}
					if err := c.Get(ctx, client.ObjectKeyFromObject(o), other); err != nil {
						return err
					}
					other.Status.DisruptionsAllowed = 0
					if err := c.Status().Update(ctx, other); err != nil {
						return err
					}
				}
				return c.SubResource(sub).Update(ctx, o, opts...)
			},
		})
		if code, status := evict(t, handler, policyv1.Eviction{}); code != http.StatusTooManyRequests {
			t.Errorf("got %d: %s", code, status.Message)
		}
		if err := c.Get(t.Context(), key, &pcorev1.Pod{}); err != nil {
			t.Errorf("the pod: %v", err)
		}
	})
	t.Run("the options of the deletion", func(t *testing.T) {
		var deleted client.DeleteOptions
		var grace string
		_, handler := evictionWorld(t, 1, interceptor.Funcs{
			Delete: func(_ context.Context, _ client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
				for _, opt := range opts {
					opt.ApplyToDelete(&deleted)
				}
				grace = o.GetAnnotations()[graceAnnotation]
				return nil
			},
		})
		seconds := int64(7)
		code, status := evict(t, handler, policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &seconds}})
		raw := deleted.AsDeleteOptions()
		if code != http.StatusCreated || grace != "7" || raw.Preconditions == nil || raw.Preconditions.UID == nil || *raw.Preconditions.UID != "u" {
			t.Errorf("got %d: %s; grace %q, options %+v", code, status.Message, grace, raw)
		}
	})
	t.Run("another name", func(t *testing.T) {
		_, handler := evictionWorld(t, 1, interceptor.Funcs{})
		if code, status := evict(t, handler, policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "q"}}); code != http.StatusBadRequest {
			t.Errorf("got %d: %s", code, status.Message)
		}
	})
}

func TestEphemeralContainers(t *testing.T) {
	key := client.ObjectKey{Namespace: "d", Name: "p"}
	send := func(handler http.Handler, method, contentType, body string) (int, string) {
		t.Helper()
		request := httptest.NewRequestWithContext(t.Context(), method, base+"/namespaces/d/pods/p/ephemeralcontainers", strings.NewReader(body))
		request.Header.Set("Content-Type", contentType)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		return answer.Code, answer.Body.String()
	}
	c, handler := evictionWorld(t, 0, interceptor.Funcs{})
	names := func() (out []string) {
		t.Helper()
		pod := &pcorev1.Pod{}
		if err := c.Get(t.Context(), key, pod); err != nil {
			t.Fatal(err)
		}
		for _, e := range pod.Spec.EphemeralContainers {
			out = append(out, e.Name)
		}
		return out
	}
	const strategic, merge, jsonPatch = "application/strategic-merge-patch+json", "application/merge-patch+json", "application/json-patch+json"
	for _, step := range []struct {
		name, method, contentType, body string
		code                            int
		want                            []string
	}{
		{"the first", http.MethodPatch, strategic, `{"spec":{"ephemeralContainers":[{"name":"a","image":"x"}]}}`, 200, []string{"a"}},
		{"as kubectl debug, by name", http.MethodPatch, strategic, `{"spec":{"$setElementOrder/ephemeralContainers":[{"name":"a"},{"name":"b"}],"ephemeralContainers":[{"name":"b","image":"x"}]}}`, 200, []string{"a", "b"}},
		{"a JSON patch", http.MethodPatch, jsonPatch, `[{"op":"add","path":"/spec/ephemeralContainers/-","value":{"name":"c","image":"x"}}]`, 200, []string{"a", "b", "c"}},
		{"without the others", http.MethodPatch, merge, `{"spec":{"ephemeralContainers":[{"name":"d","image":"x"}]}}`, 400, []string{"a", "b", "c"}},
		{"another image", http.MethodPatch, strategic, `{"spec":{"ephemeralContainers":[{"name":"a","image":"y"}]}}`, 400, []string{"a", "b", "c"}},
		{"another sort of patch", http.MethodPatch, "application/apply-patch+yaml", `{}`, 415, []string{"a", "b", "c"}},
		{"an old version", http.MethodPut, "application/json", `{"metadata":{"resourceVersion":"1"},"spec":{"ephemeralContainers":[]}}`, 409, []string{"a", "b", "c"}},
		{"nonsense", http.MethodPut, "application/json", `[`, 400, []string{"a", "b", "c"}},
		{"the whole pod", http.MethodPut, "application/json", `{"spec":{"ephemeralContainers":[{"name":"a","image":"x"},{"name":"b","image":"x"},{"name":"c","image":"x"},{"name":"e","image":"x"}]}}`, 200, []string{"a", "b", "c", "e"}},
		{"a look", http.MethodGet, "", ``, 200, []string{"a", "b", "c", "e"}},
	} {
		code, body := send(handler, step.method, step.contentType, step.body)
		if diff := cmp.Diff(step.want, names()); code != step.code || diff != "" {
			t.Errorf("%s: got %d: %s; difference: %s", step.name, code, body, diff)
		}
	}
}
