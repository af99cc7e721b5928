// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
)

// shownErrors bounds what is printed of one CRD: a mistake in a type shows at each of its places.
const shownErrors = 6

// validate refuses what an API server would refuse, CEL's cost limits included, so that config/crd/bases always holds
// CRDs that can be installed.
func validate(definition *apiextensionsv1.CustomResourceDefinition) error {
	defaulted := definition.DeepCopy()
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&defaulted.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(defaulted, &internal, nil); err != nil {
		return fmt.Errorf("converting the CRD: %w", err)
	}
	internal.Status.StoredVersions = []string{internal.Spec.Versions[0].Name}
	found := validation.ValidateCustomResourceDefinition(context.Background(), &internal)
	if len(found) == 0 {
		return nil
	}
	var lines []string
	for i, one := range found {
		if i == shownErrors {
			lines = append(lines, fmt.Sprintf("… and %d more", len(found)-i))
			break
		}
		lines = append(lines, one.Error())
	}
	return fmt.Errorf("an API server would refuse the CRD:\n  %s", strings.Join(lines, "\n  "))
}
