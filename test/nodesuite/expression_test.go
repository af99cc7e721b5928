// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	celtypes "github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// expressions evaluates what a case says of its pod, in CEL. There are
//
//	pod, spec, status       the pod as the API server has it; gone says that it is no more
//	c.NAME                  the status of a container, init and ephemeral ones too
//	state.NAME              "waiting: REASON", "running" or "terminated: REASON" of a container
//	is.TYPE, why.TYPE       a condition's status and reason
//	exec(NAME, "WORDS…")    what the test's program prints in the container, with "exit N" when it fails
//	log(NAME), log(NAME,N)  what the container printed, at its Nth restart
//	file(PATH)              a file in the case's folder on the node
//	http(PORT, PATH)        what the pod answers
//	events(REASON)          the notes of the pod's events
//	cgroup(FILE)            a file of the pod's own cgroup, in whichever hierarchy has it
//	volume(PATH)            a file in the pod's folder on the node
//	nodelink(PATH)          a link of the node; nodeoom() the score of its processes, below which some machines allow none
//	pulls()                 how often the registry with a password was asked for an image
type expressions struct {
	world *world
	run   *caseRun
	env   *cel.Env
}

func newExpressions(w *world, r *caseRun) (*expressions, error) {
	e := &expressions{world: w, run: r}
	options := []cel.EnvOption{ext.Strings(), ext.Lists(), ext.Sets()}
	for _, name := range []string{"pod", "spec", "status", "c", "state", "is", "why"} {
		options = append(options, cel.Variable(name, cel.DynType))
	}
	options = append(options, cel.Variable("gone", cel.BoolType), cel.Variable("now", cel.TimestampType))
	texts := func(n int) []*cel.Type {
		out := make([]*cel.Type, n)
		for i := range out {
			out[i] = cel.StringType
		}
		return out
	}
	add := func(name string, in []*cel.Type, out *cel.Type, do func(args []any) (any, error)) {
		options = append(options, cel.Function(name, cel.Overload(fmt.Sprintf("%s_%d", name, len(in)), in, out, cel.FunctionBinding(func(values ...ref.Val) ref.Val {
			args := make([]any, len(values))
			for i := range values {
				args[i] = values[i].Value()
			}
			got, err := do(args)
			if err != nil {
				return celtypes.NewErr("%s: %v", name, err)
			}
			return celtypes.DefaultTypeAdapter.NativeToValue(got)
		}))))
	}
	add("exec", texts(2), cel.StringType, func(a []any) (any, error) { return e.exec(a[0].(string), a[1].(string)) })
	add("log", texts(1), cel.StringType, func(a []any) (any, error) { return e.log(a[0].(string), -1) })
	add("log", []*cel.Type{cel.StringType, cel.IntType}, cel.StringType, func(a []any) (any, error) { return e.log(a[0].(string), a[1].(int64)) })
	add("file", texts(1), cel.StringType, func(a []any) (any, error) { return read(filepath.Join(r.host, a[0].(string))) })
	add("volume", texts(1), cel.StringType, func(a []any) (any, error) { return read(filepath.Join(w.podDir(r.pod), a[0].(string))) })
	add("http", []*cel.Type{cel.IntType, cel.StringType}, cel.StringType, func(a []any) (any, error) { return e.http(a[0].(int64), a[1].(string)) })
	add("events", texts(1), cel.ListType(cel.StringType), func(a []any) (any, error) { return e.events(a[0].(string)) })
	add("cgroup", texts(1), cel.StringType, func(a []any) (any, error) { return podCgroup(r.pod, a[0].(string)) })
	add("nodelink", texts(1), cel.StringType, func(a []any) (any, error) { return os.Readlink(a[0].(string)) })
	add("nodeoom", nil, cel.IntType, func([]any) (any, error) {
		text, err := read("/proc/self/oom_score_adj")
		if err != nil {
			return nil, err
		}
		return strconv.ParseInt(text, 10, 64)
	})
	add("pulls", nil, cel.IntType, func([]any) (any, error) { return w.registry.pulls.Load(), nil })
	var err error
	e.env, err = cel.NewEnv(options...)
	return e, err
}

// eval says whether an expression is true of the pod now; nil is a pod that is gone.
func (e *expressions) eval(text string, pod *pcorev1.Pod) (bool, error) {
	ast, issues := e.env.Compile(text)
	if issues.Err() != nil {
		return false, &badExpression{issues.Err()}
	}
	program, err := e.env.Program(ast)
	if err != nil {
		return false, &badExpression{err}
	}
	variables := map[string]any{"gone": pod == nil, "now": time.Now(), "pod": nil, "spec": nil, "status": nil, "c": nil, "state": nil, "is": nil, "why": nil}
	if pod != nil {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
		if err != nil {
			return false, err
		}
		variables["pod"], variables["spec"], variables["status"] = object, object["spec"], object["status"]
		statuses(object["status"], variables)
	}
	out, _, err := program.Eval(variables)
	if err != nil {
		return false, err
	}
	value, ok := out.Value().(bool)
	if !ok {
		return false, &badExpression{fmt.Errorf("%q is %v, not true or false", text, out.Value())}
	}
	return value, nil
}

// badExpression is a mistake in the case itself, for which nobody waits.
type badExpression struct{ error }

// statuses lays out containers and conditions by name.
func statuses(status any, variables map[string]any) {
	containers, states, is, why := map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}
	all, _ := status.(map[string]any)
	for _, list := range []string{"initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"} {
		entries, _ := all[list].([]any)
		for _, each := range entries {
			entry, _ := each.(map[string]any)
			name, _ := entry["name"].(string)
			containers[name] = entry
			state, _ := entry["state"].(map[string]any)
			states[name] = stateText(state)
		}
	}
	conditions, _ := all["conditions"].([]any)
	for _, each := range conditions {
		entry, _ := each.(map[string]any)
		kind, _ := entry["type"].(string)
		is[kind], why[kind] = entry["status"], entry["reason"]
	}
	variables["c"], variables["state"], variables["is"], variables["why"] = containers, states, is, why
}

func stateText(state map[string]any) string {
	if _, ok := state["running"]; ok {
		return "running"
	}
	for _, kind := range []string{"waiting", "terminated"} {
		if inner, ok := state[kind].(map[string]any); ok {
			return fmt.Sprintf("%s: %v", kind, inner["reason"])
		}
	}
	return ""
}

// containerID is the container's, without the runtime's name.
func (e *expressions) containerID(name string) (string, error) {
	s := &e.run.pod.Status
	for _, list := range [][]containerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if _, id, ok := strings.Cut(list[i].ContainerID, "://"); ok && list[i].Name == name {
				return id, nil
			}
		}
	}
	return "", fmt.Errorf("container %s has no ID yet", name)
}

func (e *expressions) exec(container, words string) (string, error) {
	id, err := e.containerID(container)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	response, err := e.world.node.CRI.ExecSync(ctx, id, append([]string{"/testprog"}, strings.Fields(words)...), 15*time.Second)
	if err != nil {
		return "", err
	}
	out := strings.TrimSpace(string(response.GetStdout()) + string(response.GetStderr()))
	if code := response.GetExitCode(); code != 0 {
		out = strings.TrimSpace(fmt.Sprintf("%s exit %d", out, code))
	}
	return out, nil
}

// log reads the container's log from the node's disk.
func (e *expressions) log(container string, restart int64) (string, error) {
	pod := e.run.pod
	dir := filepath.Join(e.world.dataDir(), "log", pod.Namespace+"_"+pod.Name+"_"+string(pod.UID), container)
	if restart < 0 {
		logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(logs) == 0 {
			return "", fmt.Errorf("there is no log in %s: %w", dir, errors.Join(err))
		}
		restart = int64(len(logs) - 1)
	}
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(restart)+".log"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			out.WriteString(parts[3])
		}
	}
	return strings.TrimSpace(out.String()), nil
}

func read(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

func (e *expressions) http(port int64, path string) (string, error) {
	response, err := (&http.Client{Timeout: 3 * time.Second}).Get(fmt.Sprintf("http://%s:%d%s", e.run.pod.Status.PodIP, port, path))
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body)), err
}

func (e *expressions) events(reason string) ([]string, error) {
	var list eventsv1.EventList
	if err := e.world.client.List(context.Background(), &list, client.InNamespace(e.run.pod.Namespace)); err != nil {
		return nil, err
	}
	out := []string{}
	for i := range list.Items {
		if list.Items[i].Reason == reason && list.Items[i].Regarding.UID == e.run.pod.UID {
			out = append(out, list.Items[i].Note)
		}
	}
	return out, nil
}

// podCgroup reads a file of the pod's cgroup, the first of several names that is there.
func podCgroup(pod *pcorev1.Pod, files string) (string, error) {
	for file := range strings.SplitSeq(files, ",") {
		if text, err := podCgroupFile(pod, file); err == nil {
			return text, nil
		}
	}
	return "", fmt.Errorf("the pod's cgroup has none of %s", files)
}

func podCgroupFile(pod *pcorev1.Pod, file string) (string, error) {
	for _, pattern := range []string{"/sys/fs/cgroup/*" + cgroupRoot + "/", "/sys/fs/cgroup" + cgroupRoot + "/"} {
		for _, class := range []string{"", "burstable/", "besteffort/"} {
			paths, err := filepath.Glob(pattern + class + "pod" + string(pod.UID) + "/" + file)
			if err != nil {
				return "", err
			}
			if len(paths) > 0 {
				text, err := read(paths[0])
				return class + " " + text, err
			}
		}
	}
	return "", fmt.Errorf("the pod's cgroup has no %s", file)
}
