// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestPaths(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/pods":                                                     "/apis/core.pinnace.dev/v1/pods",
		"/api/v1/namespaces/d/pods/p":                                      "/apis/core.pinnace.dev/v1/namespaces/d/pods/p",
		"/api/v1/namespaces/d/pods/p/status":                               "/apis/core.pinnace.dev/v1/namespaces/d/pods/p/status",
		"/api/v1/namespaces/d/pods/p/log":                                  "/apis/subresources.pinnace.dev/v1/namespaces/d/pods/p/log",
		"/api/v1/namespaces/d/pods/p:80/proxy/a/b":                         "/apis/subresources.pinnace.dev/v1/namespaces/d/pods/p:80/proxy/a/b",
		"/api/v1/namespaces/d/pods/p/eviction":                             "/apis/subresources.pinnace.dev/v1/namespaces/d/pods/p/eviction",
		"/api/v1/nodes/n":                                                  "/apis/core.pinnace.dev/v1/nodes/n",
		"/apis/apps/v1/namespaces/d/deployments/w/scale":                   "/apis/apps.pinnace.dev/v1/namespaces/d/deployments/w/scale",
		"/apis/networking.k8s.io/v1/ingressclasses":                        "/apis/networking.pinnace.dev/v1/ingressclasses",
		"/apis/metrics.k8s.io/v1beta1/namespaces/d/pods":                   "/apis/metrics.pinnace.dev/v1beta1/namespaces/d/pods",
		"/apis/metrics.k8s.io/v1beta1/nodes":                               "/apis/metrics.pinnace.dev/v1beta1/nodes",
		"/apis/apps.pinnace.dev/v1/namespaces/d/daemonsets":                "/apis/apps.pinnace.dev/v1/namespaces/d/daemonsets",
		"/apis/core.pinnace.dev/v1/namespaces/d/pods/p/log":                "/apis/subresources.pinnace.dev/v1/namespaces/d/pods/p/log",
		"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n": "/apis/coordination.k8s.io/v1/namespaces/pinnace-node-lease/leases/n",
		// What both share, or what Pinnace hasn't.
		"/api/v1/namespaces/d":                                       "",
		"/api/v1/namespaces/d/status":                                "",
		"/api/v1/namespaces/d/events":                                "",
		"/api/v1/namespaces/d/serviceaccounts/s":                     "",
		"/apis/rbac.authorization.k8s.io/v1/roles":                   "",
		"/apis/storage.k8s.io/v1/csinodes":                           "",
		"/apis/autoscaling/v1/namespaces/d/horizontalpodautoscalers": "",
		"/apis/example.com/v1/namespaces/d/pods":                     "",
		"/version":                                                   "",
		"/openapi/v3":                                                "",
	} {
		p, ok := parsePath(path)
		got := ""
		if ok {
			if at, ours := toPinnace(p); ours {
				got = at.path()
			}
			if p.path() != path {
				t.Errorf("%s comes back as %s", path, p.path())
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	out, err := decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestObjectsBothWays(t *testing.T) {
	for ours, theirs := range map[string]string{
		`{"apiVersion":"apps.pinnace.dev/v1","kind":"ReplicaSet","metadata":{"ownerReferences":[{"apiVersion":"apps.pinnace.dev/v1","kind":"Deployment"},{"apiVersion":"example.com/v1","kind":"Deployment"}]}}`: `{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment"},{"apiVersion":"example.com/v1","kind":"Deployment"}]}}`,
		`{"apiVersion":"core.pinnace.dev/v1","kind":"PodList","items":[{"apiVersion":"core.pinnace.dev/v1","kind":"Pod"}]}`:                                                                                      `{"apiVersion":"v1","kind":"PodList","items":[{"apiVersion":"v1","kind":"Pod"}]}`,
		`{"apiVersion":"autoscaling.pinnace.dev/v2","kind":"HorizontalPodAutoscaler","spec":{"scaleTargetRef":{"apiVersion":"apps.pinnace.dev/v1","kind":"Deployment"}}}`:                                        `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment"}}}`,
		`{"apiVersion":"networking.pinnace.dev/v1","kind":"Ingress","spec":{"defaultBackend":{"resource":{"apiGroup":"apps.pinnace.dev","kind":"Deployment"}}}}`:                                                 `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","spec":{"defaultBackend":{"resource":{"apiGroup":"apps","kind":"Deployment"}}}}`,
		`{"apiVersion":"metrics.pinnace.dev/v1beta1","kind":"PodMetrics"}`:                                                                                                                                       `{"apiVersion":"metrics.k8s.io/v1beta1","kind":"PodMetrics"}`,
		`{"apiVersion":"v1","kind":"Namespace"}`: `{"apiVersion":"v1","kind":"Namespace"}`,
		`{"kind":"Status","apiVersion":"v1"}`:    `{"kind":"Status","apiVersion":"v1"}`,
	} {
		got := object(t, ours)
		translate(got, up)
		if diff := cmp.Diff(object(t, theirs), got); diff != "" {
			t.Errorf("up: %s", diff)
		}
		translate(got, down)
		if diff := cmp.Diff(object(t, ours), got); diff != "" {
			t.Errorf("down: %s", diff)
		}
	}
}

// TestComplete: kubectl reads what upstream's API server writes into every object without a look whether it is there. Without a
// selector it would take all pods for a Job's.
func TestComplete(t *testing.T) {
	for ours, want := range map[string]string{
		`{"apiVersion":"core.pinnace.dev/v1","kind":"Pod","spec":{"containers":[]},"status":{}}`: `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[],"securityContext":{}},"status":{}}`,
		`{"apiVersion":"batch.pinnace.dev/v1","kind":"Job","metadata":{"uid":"u"},"spec":{}}`:    `{"apiVersion":"batch/v1","kind":"Job","metadata":{"uid":"u"},"spec":{"selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}}}}`,
	} {
		got := object(t, ours)
		translate(got, up)
		if diff := cmp.Diff(object(t, want), got); diff != "" {
			t.Error(diff)
		}
	}
}

// apiServer is as much of an API server as the transport meets; it notes what was asked.
type apiServer struct {
	*httptest.Server
	asked   []string
	bodies  []string
	answers map[string][]answerOf
}

type answerOf struct {
	code int
	body string
}

func newAPIServer(t *testing.T, answers map[string][]answerOf) (*apiServer, *rest.Config) {
	t.Helper()
	a := &apiServer{answers: answers}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		key := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/prefix")
		a.asked, a.bodies = append(a.asked, key), append(a.bodies, string(body))
		for _, part := range strings.Split(r.Header.Get("Accept"), ",") {
			if strings.Contains(part, "protobuf") || strings.Contains(part, "cbor") {
				t.Errorf("%s asks for %s", key, part)
			}
		}
		list := a.answers[key]
		if len(list) == 0 {
			list = []answerOf{{404, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`}}
		} else if len(list) > 1 {
			a.answers[key] = list[1:]
		}
		kind := "application/json"
		if strings.Contains(r.Header.Get("Accept"), "as=APIGroupDiscoveryList") {
			kind = aggregated
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(list[0].code)
		_, _ = io.WriteString(w, list[0].body)
	}))
	t.Cleanup(a.Close)
	return a, Wrap(&rest.Config{Host: a.URL + "/prefix"})
}

func TestTypedClient(t *testing.T) {
	pod := `{"apiVersion":"core.pinnace.dev/v1","kind":"Pod","metadata":{"name":"p","resourceVersion":"%s"},"spec":{"containers":[{"name":"a","image":"x"},{"name":"b","image":"y"}]},"status":{"phase":"Running","columns":{"ready":"1/1"}}}`
	first, second := fmt.Sprintf(pod, "1"), fmt.Sprintf(pod, "2")
	const at = "/apis/core.pinnace.dev/v1/namespaces/d/pods"
	a, config := newAPIServer(t, map[string][]answerOf{
		"GET " + at + "/p":    {{200, first}, {200, second}},
		"PATCH " + at + "/p":  {{409, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`}, {200, second}},
		"DELETE " + at + "/p": {{200, second}},
		"GET " + at: {{200, `{"apiVersion":"core.pinnace.dev/v1","kind":"PodList","items":[` + first + `,{"apiVersion":"core.pinnace.dev/v1","kind":"Pod","metadata":{"name":"q"},"status":{"phase":"Failed"}}]}`},
			{200, `{"type":"ADDED","object":` + first + "}\n" + `{"type":"DELETED","object":` + second + "}\n"}},
		"POST /apis/subresources.pinnace.dev/v1/namespaces/d/pods/p/eviction": {{201, `{"kind":"Status","apiVersion":"v1","status":"Success","code":201}`}},
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := client.CoreV1().Pods("d")

	t.Run("list by phase", func(t *testing.T) {
		got, err := pods.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n,status.phase!=Failed"})
		if err != nil || len(got.Items) != 1 || got.Items[0].Name != "p" {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("watch", func(t *testing.T) {
		a.answers["GET "+at] = a.answers["GET "+at][len(a.answers["GET "+at])-1:]
		watch, err := pods.Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		var got []string
		for event := range watch.ResultChan() {
			got = append(got, string(event.Type)+" "+event.Object.(*corev1.Pod).ResourceVersion)
		}
		if diff := cmp.Diff([]string{"ADDED 1", "DELETED 2"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("strategic patch, made anew after a conflict", func(t *testing.T) {
		a.bodies = nil
		_, err := pods.Patch(t.Context(), "p", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"b","image":"z"}]}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := `{"metadata":{"resourceVersion":"2"},"spec":{"containers":[{"image":"x","name":"a"},{"image":"z","name":"b"}]}}`
		if got := a.bodies[len(a.bodies)-1]; got != want || len(a.bodies) != 4 {
			t.Errorf("after %d requests: got %s", len(a.bodies), got)
		}
	})
	t.Run("eviction", func(t *testing.T) {
		err := client.PolicyV1().Evictions("d").Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "p"}})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("deletion with a grace period", func(t *testing.T) {
		a.asked, a.bodies = nil, nil
		seconds := int64(3)
		if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: &seconds}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"PATCH " + at + "/p", "DELETE " + at + "/p"}, a.asked); diff != "" {
			t.Error(diff)
		}
		if want := `{"metadata":{"annotations":{"` + graceAnnotation + `":"3"}}}`; a.bodies[0] != want {
			t.Errorf("got %s", a.bodies[0])
		}
	})
	t.Run("errors are the API server's", func(t *testing.T) {
		if _, err := pods.Get(t.Context(), "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDiscovery(t *testing.T) {
	resource := func(name, group, kind, short string) string {
		return fmt.Sprintf(`{"resource":%q,"responseKind":{"group":%q,"version":"v1","kind":%q},"scope":"Namespaced","verbs":["get"],"shortNames":[%q]}`, name, group, kind, short)
	}
	group := func(name, version string, resources ...string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q},"versions":[{"version":%q,"resources":[%s]}]}`, name, version, strings.Join(resources, ","))
	}
	list := func(groups ...string) string {
		return `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[` + strings.Join(groups, ",") + "]}"
	}
	_, config := newAPIServer(t, map[string][]answerOf{
		"GET /api": {{200, list(group("", "v1", resource("pods", "", "Pod", "po"), resource("namespaces", "", "Namespace", "ns")))}},
		"GET /apis": {{200, list(
			group("batch", "v1", resource("jobs", "batch", "Job", "j")),
			group("core.pinnace.dev", "v1", resource("pods", "core.pinnace.dev", "Pod", "ppo")),
			group("apps.pinnace.dev", "v1", resource("deployments", "apps.pinnace.dev", "Deployment", "pdeploy")),
			group("subresources.pinnace.dev", "v1", `{"resource":"pods","scope":"Namespaced","subresources":[{"subresource":"eviction","responseKind":{"group":"policy","version":"v1","kind":"Eviction"},"verbs":["create"]}]}`),
			group("metrics.k8s.io", "v1beta1", resource("pods", "metrics.k8s.io", "PodMetrics", "x")),
		)}},
		"GET /api/v1":                           {{200, `{"kind":"APIResourceList","resources":[{"name":"pods","kind":"Pod"},{"name":"pods/log","kind":"Pod"},{"name":"namespaces","kind":"Namespace"}]}`}},
		"GET /apis/core.pinnace.dev/v1":         {{200, `{"kind":"APIResourceList","resources":[{"name":"pods","kind":"Pod","shortNames":["ppo"]}]}`}},
		"GET /apis/subresources.pinnace.dev/v1": {{200, `{"kind":"APIResourceList","resources":[{"name":"pods/eviction","kind":"Eviction","group":"policy","version":"v1"}]}`}},
	})
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			got[l.GroupVersion] += strings.TrimSpace(r.Name+" "+strings.Join(r.ShortNames, " ")) + ";"
		}
	}
	want := map[string]string{
		"v1": "namespaces ns;pods po ppo;pods/eviction;", "apps/v1": "deployments deploy pdeploy;",
		"core.pinnace.dev/v1": "pods;", "apps.pinnace.dev/v1": "deployments;",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	one, err := client.ServerResourcesForGroupVersion("v1")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range one.APIResources {
		names = append(names, r.Name)
	}
	if diff := cmp.Diff([]string{"namespaces", "pods", "pods/eviction"}, names); diff != "" {
		t.Error(diff)
	}
}

// TestFlagsAreKubectls compares each command with kubectl's own of the same version.
func TestFlagsAreKubectls(t *testing.T) {
	streams := genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: io.Discard, ErrOut: io.Discard}
	t.Setenv("KUBERC", "off")
	theirs := kubectlcmd.NewKubectlCommand(kubectlcmd.KubectlOptions{Arguments: []string{"kubectl"}, ConfigFlags: genericclioptions.NewConfigFlags(true), IOStreams: streams})
	ours := NewCommand([]string{"kubectl-pinnace"}, streams)
	for _, group := range groups {
		for _, word := range group.commands {
			compareCommands(t, find(theirs, word), find(ours, word))
		}
	}
	if find(ours, "proxy") != nil || !isKubectls("proxy") {
		t.Error("proxy is neither ours nor left to kubectl")
	}
	for _, command := range theirs.Commands() {
		if find(ours, command.Name()) == nil && !isKubectls(command.Name()) {
			t.Errorf("%s is neither ours nor left to kubectl", command.Name())
		}
	}
}

func find(root *cobra.Command, name string) *cobra.Command {
	for _, command := range root.Commands() {
		if command.Name() == name {
			return command
		}
	}
	return nil
}

func compareCommands(t *testing.T, theirs, ours *cobra.Command) {
	t.Helper()
	if ours == nil || theirs == nil {
		t.Fatalf("a command is missing: %v and %v", theirs, ours)
	}
	flags := func(c *cobra.Command) map[string]string {
		out := map[string]string{}
		c.Flags().VisitAll(func(f *pflag.Flag) { out[f.Name] = f.Shorthand + " " + f.DefValue + " " + f.Usage })
		return out
	}
	if diff := cmp.Diff(flags(theirs), flags(ours)); diff != "" {
		t.Errorf("%s: %s", ours.CommandPath(), diff)
	}
	for _, child := range theirs.Commands() {
		compareCommands(t, child, find(ours, child.Name()))
	}
}

func TestApplyStrategicallyKeepsExtensions(t *testing.T) {
	current := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"resourceVersion":"7"},"spec":{"onFailure":{"mode":"Rollback"},"replicas":1}}`
	got, err := applyStrategically([]byte(current), []byte(`{"spec":{"replicas":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	var diff map[string]any
	if err := json.Unmarshal(got, &diff); err != nil {
		t.Fatal(err)
	}
	if want := `{"metadata":{"resourceVersion":"7"},"spec":{"replicas":2}}`; string(got) != want {
		t.Errorf("got %s", got)
	}
}
