// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
	"github.com/pinnace-dev/pinnace/internal/disruption"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=delete;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods/status,verbs=update
// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets,verbs=get;list;watch
// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets/status,verbs=update

// graceAnnotation takes the place of metadata.deletionGracePeriodSeconds, which the API server doesn't keep for custom
// resources (docs/adr/0030).
const graceAnnotation = "pinnace.dev/deletion-grace-period-seconds"

// Reason and message of the condition DisruptionTarget; upstream's.
const (
	evictedReason  = "EvictionByEvictionAPI"
	evictedMessage = "Eviction API: evicting"
)

// evictionTries bounds how often a decision is made anew because somebody else wrote meanwhile.
const evictionTries = 5

// bodyMost bounds what is read of a request.
const bodyMost = 3 << 20

var podResource = schema.GroupResource{Group: pcorev1.GroupVersion.Group, Resource: "pods"}

func (s *Server) serveEviction(w http.ResponseWriter, r *http.Request) {
	eviction, err := readEviction(r)
	if err != nil {
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

// remove deletes the pod that was looked at, never another of its name. What its agent is to know of the deletion is written
// first, since a custom resource's deletion carries nothing.
func (s *Server) remove(ctx context.Context, pod *pcorev1.Pod, options metav1.DeleteOptions, exact bool) error {
	if len(options.DryRun) == 0 && pod.DeletionTimestamp == nil {
		var err error
		if pod, err = s.announceSurely(ctx, pod, options.GracePeriodSeconds, exact); err != nil {
			return err
		}
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

// announceSurely tries again on the pod as it is now when its agent wrote meanwhile: the budget has been charged, and isn't to
// be asked twice. Where the decision hangs on the pod's state it isn't for us to go on.
func (s *Server) announceSurely(ctx context.Context, pod *pcorev1.Pod, seconds *int64, exact bool) (*pcorev1.Pod, error) {
	for try := 1; ; try++ {
		changed, err := s.announce(ctx, pod, seconds)
		if err == nil || exact || !apierrors.IsConflict(err) || try == evictionTries {
			return changed, err
		}
		fresh := &pcorev1.Pod{}
		if err := s.Live.Get(ctx, client.ObjectKeyFromObject(pod), fresh); err != nil {
			return nil, err
		}
		if fresh.UID != pod.UID {
			return nil, apierrors.NewNotFound(podResource, pod.Name)
		}
		pod = fresh
	}
}

// announce writes the grace period, if one is wanted, and the condition that tells why the pod goes. The pod's agent keeps the
// condition: DisruptionTarget belongs to whoever ends a pod for another's sake. A pod that has ended or was never bound goes
// without.
func (s *Server) announce(ctx context.Context, pod *pcorev1.Pod, seconds *int64) (*pcorev1.Pod, error) {
	changed := pod.DeepCopy()
	if seconds != nil {
		if changed.Annotations == nil {
			changed.Annotations = map[string]string{}
		}
		changed.Annotations[graceAnnotation] = strconv.FormatInt(*seconds, 10)
		if err := s.Client.Patch(ctx, changed, client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{})); err != nil {
			return nil, fmt.Errorf("writing the pod's grace period: %w", err)
		}
	}
	if pod.Spec.NodeName == "" || podstate.IsTerminal(pod.Status.Phase) || podstate.IsTrue(pod.Status.Conditions, corev1.DisruptionTarget) {
		return changed, nil
	}
	target := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: evictedReason, Message: evictedMessage}
	changed.Status.Conditions = podstate.Stamp([]corev1.PodCondition{target}, changed.Status.Conditions, changed.Generation, time.Now())
	if err := s.Client.Status().Update(ctx, changed); err != nil {
		return nil, fmt.Errorf("writing the condition %s: %w", corev1.DisruptionTarget, err)
	}
	return changed, nil
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

// evictionCodecs decode an eviction in each encoding that clients of the API speak: JSON, YAML, protobuf, CBOR.
var evictionCodecs = func() serializer.CodecFactory {
	known := runtime.NewScheme()
	utilruntime.Must(policyv1.AddToScheme(known))
	return serializer.NewCodecFactory(known, serializer.WithSerializer(cbor.NewSerializerInfo))
}()

// readEviction reads the body of a request; an empty one is an eviction without wishes.
func readEviction(r *http.Request) (*policyv1.Eviction, error) {
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, bodyMost))
	if err != nil {
		return nil, apierrors.NewBadRequest("reading the request: " + err.Error())
	}
	eviction := &policyv1.Eviction{}
	if len(data) == 0 {
		return eviction, nil
	}
	kind := policyv1.SchemeGroupVersion.WithKind("Eviction")
	if _, _, err := evictionCodecs.UniversalDeserializer().Decode(data, &kind, eviction); err != nil {
		return nil, apierrors.NewBadRequest("the request is no Eviction of policy/v1: " + err.Error())
	}
	return eviction, nil
}
