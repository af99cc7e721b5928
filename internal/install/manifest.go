// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// crdFolder holds one CRD a file, named <group>_<plural>.yaml, so that an unchanged one needs no parsing: the
// schemas are two megabytes of YAML.
const crdFolder = "crd/bases"

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// resources are the kinds that a manifest may have.
var resources = map[schema.GroupKind]schema.GroupVersionResource{
	{Kind: "Namespace"}:      {Version: "v1", Resource: "namespaces"},
	{Kind: "ServiceAccount"}: {Version: "v1", Resource: "serviceaccounts"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:                         {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}:                  {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:                                {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:                         {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:        {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"}: {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicy"}:          {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicyBinding"}:   {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings"},
}

// manifest is one object to install.
type manifest struct {
	resource  schema.GroupVersionResource
	namespace string
	name      string
	hash      string
	raw       []byte
}

// readCRDs reads the CRDs' files without parsing them.
func readCRDs(files fs.FS) ([]manifest, error) {
	entries, err := fs.ReadDir(files, crdFolder)
	if err != nil {
		return nil, fmt.Errorf("listing the embedded CRDs: %w", err)
	}
	list := make([]manifest, 0, len(entries))
	for _, entry := range entries {
		raw, err := fs.ReadFile(files, path.Join(crdFolder, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading an embedded CRD: %w", err)
		}
		group, plural, ok := strings.Cut(strings.TrimSuffix(entry.Name(), ".yaml"), "_")
		if !ok {
			return nil, fmt.Errorf("the embedded CRD %s isn't named <group>_<plural>.yaml", entry.Name())
		}
		list = append(list, manifest{resource: crds, name: plural + "." + group, hash: hashOf(raw), raw: raw})
	}
	return list, nil
}

// readFolder reads a folder's manifests; kustomize's own files are left out.
func readFolder(files fs.FS, folder string) ([]manifest, error) {
	paths, err := fs.Glob(files, folder+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("listing the embedded manifests: %w", err)
	}
	var list []manifest
	for _, name := range paths {
		if path.Base(name) == "kustomization.yaml" {
			continue
		}
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading an embedded manifest: %w", err)
		}
		for _, document := range bytes.Split(raw, []byte("\n---\n")) {
			m, err := parse(document)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", name, err)
			}
			list = append(list, m)
		}
	}
	return list, nil
}

func parse(document []byte) (manifest, error) {
	var object unstructured.Unstructured
	if err := yaml.Unmarshal(document, &object.Object); err != nil {
		return manifest{}, err
	}
	resource, known := resources[object.GroupVersionKind().GroupKind()]
	if !known {
		return manifest{}, fmt.Errorf("the installer doesn't know the kind %s", object.GroupVersionKind())
	}
	return manifest{
		resource: resource, namespace: object.GetNamespace(), name: object.GetName(),
		hash: hashOf(document), raw: document,
	}, nil
}

func hashOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}
