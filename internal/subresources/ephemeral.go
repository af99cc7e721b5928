// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// serveEphemeralContainers shows a pod, and adds ephemeral containers to it: as upstream, what is there can't be changed nor
// taken away, and nothing but the list is looked at.
func (s *Server) serveEphemeralContainers(w http.ResponseWriter, r *http.Request) {
	s.servePod(w, r, s.addEphemeral)
}

// servePod shows a pod, after the change that a request asks for which isn't a GET.
func (s *Server) servePod(w http.ResponseWriter, r *http.Request, change func(*http.Request, *pcorev1.Pod) (*pcorev1.Pod, error)) {
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	pod := &pcorev1.Pod{}
	err := s.Live.Get(r.Context(), key, pod)
	if err == nil && r.Method != http.MethodGet {
		pod, err = change(r, pod)
	}
	if err != nil {
		access.WriteError(w, err)
		return
	}
	pod.SetGroupVersionKind(pcorev1.GroupVersion.WithKind("Pod"))
	access.WriteJSON(w, http.StatusOK, pod)
}

func (s *Server) addEphemeral(r *http.Request, pod *pcorev1.Pod) (*pcorev1.Pod, error) {
	wanted, err := readPod(r, pod)
	if err != nil {
		return nil, err
	}
	if err := onlyAdds(pod.Spec.EphemeralContainers, wanted.Spec.EphemeralContainers); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s: %v", pod.Name, err))
	}
	changed := pod.DeepCopy()
	changed.Spec.EphemeralContainers = wanted.Spec.EphemeralContainers
	how := []client.PatchOption{}
	if r.URL.Query().Get("dryRun") == "All" {
		how = append(how, client.DryRunAll)
	}
	if err := s.Client.Patch(r.Context(), changed, client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{}), how...); err != nil {
		return nil, err
	}
	return changed, nil
}

// patched applies a patch to the pod as upstream's type describes it.
func patched(pod *pcorev1.Pod, contentType string, patch []byte) ([]byte, error) {
	original, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encoding the pod: %w", err)
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = contentType
	}
	var out []byte
	switch types.PatchType(kind) {
	case types.StrategicMergePatchType:
		out, err = strategicpatch.StrategicMergePatch(original, patch, corev1.Pod{})
	case types.MergePatchType:
		out, err = jsonpatch.MergePatch(original, patch)
	case types.JSONPatchType:
		var operations jsonpatch.Patch
		if operations, err = jsonpatch.DecodePatch(patch); err == nil {
			out, err = operations.Apply(original)
		}
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", podResource, pod.Name,
			fmt.Sprintf("the patch is of the type %q: send a strategic merge, merge or JSON patch", kind), 0, false)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("the patch can't be applied: " + err.Error())
	}
	return out, nil
}

// onlyAdds is pure: it refuses a list in which something is missing or different.
func onlyAdds(old, wanted []corev1.EphemeralContainer) error {
	byName := map[string]*corev1.EphemeralContainer{}
	for i := range wanted {
		byName[wanted[i].Name] = &wanted[i]
	}
	for i := range old {
		switch now := byName[old[i].Name]; {
		case now == nil:
			return fmt.Errorf("the ephemeral container %s can't be removed", old[i].Name)
		case !equality.Semantic.DeepEqual(old[i], *now):
			return fmt.Errorf("the ephemeral container %s can't be changed", old[i].Name)
		}
	}
	return nil
}
