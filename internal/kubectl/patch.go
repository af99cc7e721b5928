// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

// patchTries bounds how often a patch is made anew because somebody else wrote meanwhile, as the API server does it.
const patchTries = 5

// graceAnnotation takes the place of a deletion's grace period, which the API server doesn't keep for custom resources
// (docs/adr/0030).
const graceAnnotation = "pinnace.dev/deletion-grace-period-seconds"

// patchStrategically does what the API server does with a strategic merge patch of a native kind, and doesn't with one of a
// custom resource: it reads the object, applies the patch by upstream's type, and sends the difference as a merge patch that
// holds for just the version it was made from.
func (t *transport) patchStrategically(r *http.Request) (*http.Response, error) {
	patch, err := readAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the patch: %w", err)
	}
	for try := 1; ; try++ {
		current, response, err := t.get(r)
		if current == nil {
			return response, err
		}
		difference, err := applyStrategically(current, patch)
		if err != nil {
			return nil, err
		}
		out := r.Clone(r.Context())
		out.Header.Set("Content-Type", string(types.MergePatchType))
		setBody(out, difference)
		response, err = t.base.RoundTrip(out)
		if err != nil {
			return nil, err
		}
		if response.StatusCode == http.StatusConflict && try < patchTries && !namesVersion(patch) {
			_ = response.Body.Close()
			continue
		}
		return answer(response, false, nil)
	}
}

// get reads the object of a request as upstream's kind. Without one it returns the API server's answer.
func (t *transport) get(r *http.Request) ([]byte, *http.Response, error) {
	out := r.Clone(r.Context())
	out.Method, out.URL.RawQuery, out.Body, out.ContentLength = http.MethodGet, "", nil, 0
	out.Header.Del("Content-Type")
	out.Header.Set("Accept", runtime.ContentTypeJSON)
	response, err := t.base.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		response, err = answer(response, false, nil)
		return nil, response, err
	}
	data, err := readAll(response.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the object that is to be patched: %w", err)
	}
	data, err = translateJSON(data, up)
	return data, nil, err
}

// applyStrategically is pure: it returns the merge patch that makes of an object of upstream's kind, sent as Pinnace's, what
// the strategic patch makes of it.
func applyStrategically(current, patch []byte) ([]byte, error) {
	object, err := decode(current)
	if err != nil {
		return nil, err
	}
	kind := (&unstructured.Unstructured{Object: object}).GroupVersionKind()
	typed, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, fmt.Errorf("patching a %s strategically: %w", kind.Kind, err)
	}
	patched, err := strategicpatch.StrategicMergePatch(current, patch, typed)
	if err != nil {
		return nil, fmt.Errorf("applying the patch: %w", err)
	}
	before, err := translateJSON(current, down)
	if err != nil {
		return nil, err
	}
	after, err := translateJSON(patched, down)
	if err != nil {
		return nil, err
	}
	difference, err := jsonpatch.CreateMergePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("comparing the object with the patched one: %w", err)
	}
	changed, err := decode(difference)
	if err != nil {
		return nil, err
	}
	wanted, err := decode(patched)
	if err != nil {
		return nil, err
	}
	// The version that it holds for: the one that was read, or the one that the patch names.
	version := (&unstructured.Unstructured{Object: wanted}).GetResourceVersion()
	metadata, _ := changed["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["resourceVersion"], changed["metadata"] = version, metadata
	return json.Marshal(changed)
}

// namesVersion says that the patch itself wants a certain version, so that a conflict is its sender's to know.
func namesVersion(patch []byte) bool {
	object, err := decode(patch)
	return err == nil && (&unstructured.Unstructured{Object: object}).GetResourceVersion() != ""
}

// setGracePeriod writes the grace period of a pod's deletion where the pod's agent reads it, before the deletion.
func (t *transport) setGracePeriod(r *http.Request, body []byte) error {
	var options metav1.DeleteOptions
	if err := json.Unmarshal(body, &options); err != nil || options.GracePeriodSeconds == nil || len(options.DryRun) > 0 {
		return nil
	}
	seconds := strconv.FormatInt(*options.GracePeriodSeconds, 10)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{graceAnnotation: seconds}}})
	if err != nil {
		return fmt.Errorf("encoding the grace period: %w", err)
	}
	out := r.Clone(r.Context())
	out.Method, out.URL.RawQuery = http.MethodPatch, url.Values{"fieldManager": {"kubectl-pinnace"}}.Encode()
	out.Header.Set("Content-Type", string(types.MergePatchType))
	setBody(out, patch)
	response, err := t.base.RoundTrip(out)
	if err != nil {
		return fmt.Errorf("writing the grace period: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound {
		return fmt.Errorf("writing the grace period into the pod's annotation %s: %s; delete without --grace-period, or with the right to patch pods", graceAnnotation, response.Status)
	}
	return nil
}
