package validate

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bufio"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// manifests is every object of deploy/kubernetes, decoded strictly: an unknown
// or doubled field is an error.
func manifests(t *testing.T) (objects map[string]any) {
	t.Helper()
	objects = map[string]any{}
	files, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := documents.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
		for {
			doc, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			var kind meta.TypeMeta
			if err := yaml.Unmarshal(doc, &kind); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			into, ok := map[string]any{
				"v1/Namespace":                                  &core.Namespace{},
				"v1/ConfigMap":                                  &core.ConfigMap{},
				"v1/PersistentVolumeClaim":                      &core.PersistentVolumeClaim{},
				"apps/v1/Deployment":                            &apps.Deployment{},
				"networking.k8s.io/v1/NetworkPolicy":            &networking.NetworkPolicy{},
				"monitoring.coreos.com/v1/PodMonitor":           &monitoring.PodMonitor{},
				"kustomize.config.k8s.io/v1beta1/Kustomization": &types.Kustomization{},
			}[kind.APIVersion+"/"+kind.Kind]
			if !ok {
				t.Errorf("%s: unknown kind %s of %s", file, kind.Kind, kind.APIVersion)
				continue
			}
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if objects[kind.Kind] != nil {
				t.Errorf("%s: a second %s, which this test does not know how to keep", file, kind.Kind)
			}
			objects[kind.Kind] = into
		}
	}
	return objects
}

// The namespace asks for the restricted standard, and the pod meets it.
func TestPodSecurity(t *testing.T) {
	objects := manifests(t)
	namespace, deployment := objects["Namespace"].(*core.Namespace), objects["Deployment"].(*apps.Deployment)
	asked, errs := api.PolicyToEvaluate(namespace.Labels, api.Policy{})
	if len(errs) > 0 || asked.Enforce.Level != api.LevelRestricted || asked.Warn.Level != api.LevelRestricted {
		t.Errorf("the namespace asks for %v, %v", asked, errs)
	}
	restricted, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pod := &deployment.Spec.Template
	results := restricted.EvaluatePod(asked.Enforce, &pod.ObjectMeta, &pod.Spec)
	if len(results) == 0 {
		t.Error("nothing was checked")
	}
	for _, r := range results {
		if !r.Allowed {
			t.Errorf("not restricted: %s: %s", r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
}

// What names something names what is there.
func TestManifests(t *testing.T) {
	objects := manifests(t)
	deployment := objects["Deployment"].(*apps.Deployment)
	network, monitor := objects["NetworkPolicy"].(*networking.NetworkPolicy), objects["PodMonitor"].(*monitoring.PodMonitor)
	pod := deployment.Spec.Template
	for what, selector := range map[string]*meta.LabelSelector{
		"Deployment": deployment.Spec.Selector, "NetworkPolicy": &network.Spec.PodSelector, "PodMonitor": &monitor.Spec.Selector,
	} {
		s, err := meta.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s does not select the pod: %v", what, err)
		}
	}
	// The alerts name the job.
	if job := pod.Labels[monitor.Spec.JobLabel]; job != "messenger-probe" {
		t.Errorf("the job is named %q", job)
	}
	// A service of the same name would set variables that the agent refuses.
	if links := pod.Spec.EnableServiceLinks; links == nil || *links {
		t.Error("enableServiceLinks is not false")
	}
	if token := pod.Spec.AutomountServiceAccountToken; token == nil || *token {
		t.Error("the pod holds a token of the cluster")
	}
	c := pod.Spec.Containers[0]
	if r := c.SecurityContext.ReadOnlyRootFilesystem; r == nil || !*r {
		t.Error("the root file system can be written to")
	}
	if c.Resources.Limits.Memory().IsZero() {
		t.Error("no limit of memory")
	}
	port := func(name string) bool {
		return slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == name })
	}
	for _, p := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil || !port(p.HTTPGet.Port.StrVal) {
			t.Errorf("probe %v", p)
		}
	}
	for _, e := range monitor.Spec.PodMetricsEndpoints {
		if e.Port == nil || !port(*e.Port) {
			t.Errorf("PodMonitor asks an unknown port")
		}
	}
	for _, r := range network.Spec.Ingress {
		for _, p := range r.Ports {
			if !port(p.Port.StrVal) {
				t.Errorf("NetworkPolicy opens %v", p.Port)
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil && v.ConfigMap.Name == objects["ConfigMap"].(*core.ConfigMap).Name:
		case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == objects["PersistentVolumeClaim"].(*core.PersistentVolumeClaim).Name:
		default:
			t.Errorf("volume %s is of nothing that is here", v.Name)
		}
	}
	for _, file := range objects["Kustomization"].(*types.Kustomization).Resources {
		if _, err := os.Stat("../kubernetes/" + file); err != nil {
			t.Error(err)
		}
	}
}
