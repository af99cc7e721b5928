// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestColumnsAreKubectls asks the API server for the table of each kind and of its upstream kind, and compares the
// headers that kubectl prints.
func TestColumnsAreKubectls(t *testing.T) {
	e := start(t)
	c, _ := as(t, e.Config, "")
	var definitions apiextensionsv1.CustomResourceDefinitionList
	if err := c.List(t.Context(), &definitions, client.MatchingLabels{"app.kubernetes.io/part-of": "pinnace"}); err != nil {
		t.Fatal(err)
	}
	if len(definitions.Items) == 0 {
		t.Fatal("no kind is installed")
	}
	clients, err := kubernetes.NewForConfig(e.Config)
	if err != nil {
		t.Fatal(err)
	}
	header := func(path string) (columns []string) {
		raw, err := clients.RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Raw()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var table metav1.Table
		if err := json.Unmarshal(raw, &table); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, column := range table.ColumnDefinitions {
			columns = append(columns, fmt.Sprintf("%s %d", strings.ToUpper(column.Name), column.Priority))
		}
		return columns
	}
	for _, definition := range definitions.Items {
		version, plural := definition.Spec.Versions[0].Name, definition.Spec.Names.Plural
		ours := "/apis/" + definition.Spec.Group + "/" + version + "/" + plural
		upstream := strings.TrimSuffix(definition.Spec.Group, ".pinnace.dev")
		native := "/apis/" + upstream + "/" + version + "/" + plural
		switch upstream {
		case "core":
			native = "/api/" + version + "/" + plural
		case "discovery", "networking", "storage":
			native = "/apis/" + upstream + ".k8s.io/" + version + "/" + plural
		}
		if diff := cmp.Diff(header(native), header(ours)); diff != "" {
			t.Errorf("%s: columns differ from upstream's (-upstream +ours):\n%s", definition.Spec.Names.Kind, diff)
		}
	}
}
