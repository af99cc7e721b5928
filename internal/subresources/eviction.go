// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
	"github.com/pinnace-dev/pinnace/internal/disruption"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=delete;patch
// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets,verbs=get;list;watch
// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets/status,verbs=update

// graceAnnotation takes the place of metadata.deletionGracePeriodSeconds, which the API server doesn't keep for custom
// resources (docs/adr/0030).
const graceAnnotation = "pinnace.dev/deletion-grace-period-seconds"

// evictionTries bounds how often a decision is made anew because somebody else wrote meanwhile.
const evictionTries = 5

// bodyMost bounds what is read of a request.
const bodyMost = 3 << 20

var podResource = schema.GroupResource{Group: pcorev1.GroupVersion.Group, Resource: "pods"}

func (s *Server) serveEviction(w http.ResponseWriter, r *http.Request) {
	var eviction policyv1.Eviction
	if err := readBody(r, &eviction); err != nil {
		access.WriteError(w, err)
		return
	}
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	if eviction.Name != "" && eviction.Name != key.Name {
		access.WriteError(w, apierrors.NewBadRequest(fmt.Sprintf("name in URL does not match name in Eviction object: %q and %q", key.Name, eviction.Name)))
		return
	}
	options := metav1.DeleteOptions{}
	if eviction.DeleteOptions != nil {
		options = *eviction.DeleteOptions
	}
	if r.URL.Query().Get("dryRun") == metav1.DryRunAll {
		options.DryRun = []string{metav1.DryRunAll}
	}
	// The cache will do for the first look; whoever wrote meanwhile makes our own write fail, and then the API server is asked.
	reader := s.Objects
	for range evictionTries {
		err := s.evict(r.Context(), reader, key, options)
		if apierrors.IsConflict(err) && !wantsVersion(options) {
			reader = s.Live
			continue
		}
		if err != nil {
			access.WriteError(w, err)
			return
		}
		access.WriteJSON(w, http.StatusCreated, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusCreated,
		})
		return
	}
	access.WriteError(w, tooMany("Others changed the pod or its disruption budget at the same time.", "", time.Second))
}

// wantsVersion says that the caller wants a certain version of the pod, so that a conflict is theirs to know.
func wantsVersion(o metav1.DeleteOptions) bool {
	return o.Preconditions != nil && o.Preconditions.ResourceVersion != nil
}

// evict decides once and acts: the budget's status first, so that a crash before the deletion costs a disruption for two
// minutes but never one too many.
func (s *Server) evict(ctx context.Context, reader client.Reader, key types.NamespacedName, options metav1.DeleteOptions) error {
	pod := &pcorev1.Pod{}
	if err := reader.Get(ctx, key, pod); err != nil {
		return err
	}
	var list ppolicyv1.PodDisruptionBudgetList
	if err := reader.List(ctx, &list, client.InNamespace(key.Namespace)); err != nil {
		return fmt.Errorf("listing the disruption budgets: %w", err)
	}
	budgets := make([]*ppolicyv1.PodDisruptionBudget, len(list.Items))
	for i := range list.Items {
		budgets[i] = &list.Items[i]
	}
	decision := disruption.MayEvict(pod, budgets, time.Now())
	if err := refusal(decision, key.Name); err != nil {
		return err
	}
	dry := len(options.DryRun) > 0
	if decision.Claim != nil {
		var how []client.SubResourceUpdateOption
		if dry {
			how = append(how, client.DryRunAll)
		}
		if err := s.Client.Status().Update(ctx, decision.Claim, how...); err != nil {
			return fmt.Errorf("taking a disruption of the budget %s: %w", decision.Budget, err)
		}
	}
	return s.remove(ctx, pod, options, decision.ExactPod)
}

// remove deletes the pod that was looked at, never another of its name.
func (s *Server) remove(ctx context.Context, pod *pcorev1.Pod, options metav1.DeleteOptions, exact bool) error {
	if seconds := options.GracePeriodSeconds; seconds != nil && len(options.DryRun) == 0 && pod.DeletionTimestamp == nil {
		changed := pod.DeepCopy()
		if changed.Annotations == nil {
			changed.Annotations = map[string]string{}
		}
		changed.Annotations[graceAnnotation] = strconv.FormatInt(*seconds, 10)
		if err := s.Client.Patch(ctx, changed, client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("writing the pod's grace period: %w", err)
		}
		pod = changed
	}
	if options.Preconditions == nil {
		options.Preconditions = &metav1.Preconditions{}
	}
	if options.Preconditions.UID == nil {
		options.Preconditions.UID = &pod.UID
	}
	if exact && options.Preconditions.ResourceVersion == nil {
		options.Preconditions.ResourceVersion = &pod.ResourceVersion
	}
	return s.Client.Delete(ctx, pod, &client.DeleteOptions{
		Preconditions: options.Preconditions, PropagationPolicy: options.PropagationPolicy, DryRun: options.DryRun,
	})
}

// refusal is what the caller is told when the pod may not go, as upstream's eviction endpoint tells it.
func refusal(d disruption.Decision, pod string) error {
	switch d.Answer {
	case disruption.Yes:
		return nil
	case disruption.NotNow:
		return tooMany("Cannot evict pod as it would violate the pod's disruption budget.", d.Message, d.RetryAfter)
	case disruption.Never:
		return apierrors.NewForbidden(podResource, pod, errors.New(d.Message))
	case disruption.Ambiguous:
	}
	return apierrors.NewInternalError(errors.New(d.Message))
}

func tooMany(message, cause string, after time.Duration) error {
	err := apierrors.NewTooManyRequests(message, int(after.Round(time.Second)/time.Second))
	if cause != "" {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
	}
	return err
}

// readBody reads a JSON body.
func readBody(r *http.Request, to any) error {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, bodyMost))
	if err != nil {
		return apierrors.NewBadRequest("reading the request: " + err.Error())
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, to); err != nil {
		return apierrors.NewBadRequest("the request is no JSON of the kind that is expected: " + err.Error())
	}
	return nil
}
