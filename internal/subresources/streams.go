// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// logParameters are those of PodLogOptions that an agent understands; the container stands in the path.
var logParameters = []string{"follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"}

func (s *Server) serveLog(w http.ResponseWriter, r *http.Request) {
	pod, container, err := s.podContainer(r)
	if err != nil {
		access.WriteError(w, err)
		return
	}
	if pod.Spec.NodeName == "" {
		// As upstream: a pod without a node has an empty log.
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusOK)
		return
	}
	query := url.Values{}
	for _, name := range logParameters {
		if values, ok := r.URL.Query()[name]; ok {
			query[name] = values
		}
	}
	s.forward(w, r, pod, query, "containerLogs", pod.Namespace, pod.Name, container)
}

func (s *Server) serveExec(w http.ResponseWriter, r *http.Request) { s.serveTerminal(w, r, "exec") }

func (s *Server) serveAttach(w http.ResponseWriter, r *http.Request) { s.serveTerminal(w, r, "attach") }

func (s *Server) serveTerminal(w http.ResponseWriter, r *http.Request, what string) {
	pod, container, err := s.podContainer(r)
	if err == nil {
		err = bound(pod)
	}
	if err != nil {
		access.WriteError(w, err)
		return
	}
	query, err := terminalQuery(r.URL.Query())
	if err != nil {
		access.WriteError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.forward(w, r, pod, query, what, pod.Namespace, pod.Name, string(pod.UID), container)
}

// terminalQuery turns PodExecOptions and PodAttachOptions into what a kubelet, and so an agent, takes. The defaults are
// upstream's: stdout and stderr are wanted unless the request says otherwise.
func terminalQuery(from url.Values) (url.Values, error) {
	to := url.Values{}
	for _, p := range []struct {
		name, agents string
		otherwise    bool
	}{
		{"stdin", corev1.ExecStdinParam, false},
		{"stdout", corev1.ExecStdoutParam, true},
		{"stderr", corev1.ExecStderrParam, true},
		{"tty", corev1.ExecTTYParam, false},
	} {
		value := p.otherwise
		if text := from.Get(p.name); text != "" {
			var err error
			if value, err = strconv.ParseBool(text); err != nil {
				return nil, fmt.Errorf("the parameter %s is %q: give true or false", p.name, text)
			}
		}
		if value {
			to.Set(p.agents, "1")
		}
	}
	if command := from[corev1.ExecCommandParam]; len(command) > 0 {
		to[corev1.ExecCommandParam] = command
	}
	return to, nil
}

func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod, err := s.pod(r)
	if err == nil {
		err = bound(pod)
	}
	if err != nil {
		access.WriteError(w, err)
		return
	}
	query := url.Values{}
	for _, text := range r.URL.Query()["ports"] {
		for _, port := range strings.Split(text, ",") {
			query.Add("port", port)
		}
	}
	s.forward(w, r, pod, query, "portForward", pod.Namespace, pod.Name, string(pod.UID))
}

// pod finds the pod of a request.
func (s *Server) pod(r *http.Request) (*pcorev1.Pod, error) {
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	pod := &pcorev1.Pod{}
	if err := s.Objects.Get(r.Context(), key, pod); apierrors.IsNotFound(err) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("reading the pod %s: %w", key, err)
	}
	return pod, nil
}

// podContainer finds the pod of a request, and the container by upstream's rules.
func (s *Server) podContainer(r *http.Request) (*pcorev1.Pod, string, error) {
	pod, err := s.pod(r)
	if err != nil {
		return nil, "", err
	}
	container, err := chooseContainer(pod, r.URL.Query().Get("container"))
	if err != nil {
		return nil, "", apierrors.NewBadRequest(err.Error())
	}
	return pod, container, nil
}

// chooseContainer is pure: it checks a container's name, and takes the only container when none is named.
func chooseContainer(pod *pcorev1.Pod, name string) (string, error) {
	var containers, inits, ephemeral []string
	for i := range pod.Spec.Containers {
		containers = append(containers, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		inits = append(inits, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, pod.Spec.EphemeralContainers[i].Name)
	}
	all := slices.Concat(containers, inits, ephemeral)
	switch {
	case name != "" && !slices.Contains(all, name):
		return "", fmt.Errorf("container %s is not valid for pod %s", name, pod.Name)
	case name != "":
		return name, nil
	case len(containers) == 1:
		return containers[0], nil
	case len(containers) == 0:
		return "", fmt.Errorf("a container name must be specified for pod %s", pod.Name)
	}
	message := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, containers)
	if len(inits) > 0 {
		message += fmt.Sprintf(" or one of the init containers: %v", inits)
	}
	if len(ephemeral) > 0 {
		message += fmt.Sprintf(" or one of the ephemeral containers: %v", ephemeral)
	}
	return "", fmt.Errorf("%s", message)
}

func bound(pod *pcorev1.Pod) error {
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	return nil
}

// forward hands a request, and the stream that it may become, on to the agent of the pod's node.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, pod *pcorev1.Pod, query url.Values, path ...string) {
	agent, transport, err := s.Agents.Locate(r.Context(), pod.Spec.NodeName)
	if err != nil {
		access.WriteError(w, err)
		return
	}
	target := agent.JoinPath(path...)
	target.RawQuery = query.Encode()
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // Logs are followed as they are written.
		ErrorLog:      quiet(logf.FromContext(r.Context())),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = target, ""
			// Who asks has been decided here; an agent is to see the manager alone.
			for name := range p.Out.Header {
				if name == "Authorization" || name == "Cookie" || strings.HasPrefix(name, "X-Remote-") {
					p.Out.Header.Del(name)
				}
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			access.WriteError(w, apierrors.NewServiceUnavailable(fmt.Sprintf("asking the agent of node %s: %v", pod.Spec.NodeName, err)))
		},
	}
	proxy.ServeHTTP(w, r)
}
