package validate

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads a Compose file as docker compose does.
func load(t *testing.T, file string, env ...string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{"../" + file}, cli.WithEnv(env), cli.WithInterpolation(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(context.Background())
}

// shutIn says what is missing of a service that can do no harm.
func shutIn(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	for what, ok := range map[string]bool{
		"read_only":         s.ReadOnly,
		"cap_drop":          slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0,
		"no-new-privileges": slices.Contains(s.SecurityOpt, "no-new-privileges:true") && !s.Privileged,
		"mem_limit":         s.MemLimit > 0,
		"pids_limit":        s.PidsLimit > 0,
		"logging":           s.Logging != nil && s.Logging.Options["max-size"] != "" && s.Logging.Options["max-file"] != "",
		"restart":           s.Restart == types.RestartPolicyUnlessStopped,
	} {
		if !ok {
			t.Errorf("%s: %s is not as it should be", s.Name, what)
		}
	}
	for _, p := range s.Ports {
		if p.HostIP != "127.0.0.1" {
			t.Errorf("%s: port %s is open to others than this machine", s.Name, p.Published)
		}
	}
}

func agent(t *testing.T, p *types.Project) types.ServiceConfig {
	t.Helper()
	s, err := p.GetService("agent")
	if err != nil {
		t.Fatal(err)
	}
	shutIn(t, s)
	if s.User != "65534:65534" || s.CPUS <= 0 || s.MemSwapLimit != s.MemLimit {
		t.Errorf("user %q, cpus %v, memswap_limit %v", s.User, s.CPUS, s.MemSwapLimit)
	}
	if s.HealthCheck == nil || !slices.Equal(s.HealthCheck.Test, []string{"CMD", "/messenger-probe", "healthcheck"}) {
		t.Errorf("health check %v", s.HealthCheck)
	}
	if len(s.Ports) != 1 || s.Ports[0].Target != 9770 {
		t.Errorf("ports %v", s.Ports)
	}
	dir := s.Environment["MESSENGER_PROBE_STATE_DIR"]
	if len(s.Volumes) != 1 || s.Volumes[0].Type != types.VolumeTypeVolume || dir == nil || s.Volumes[0].Target != *dir {
		t.Errorf("the state is not on a volume: %v", s.Volumes)
	}
	return s
}

func TestCompose(t *testing.T) {
	p, err := load(t, "compose.yml", "VANTAGE_COUNTRY=RU")
	if err != nil {
		t.Fatal(err)
	}
	s := agent(t, p)
	if s.NetworkMode != "bridge" {
		t.Errorf("network_mode %q", s.NetworkMode)
	}
	if c := s.Environment["MESSENGER_PROBE_VANTAGE_COUNTRY"]; c == nil || *c != "RU" {
		t.Errorf("the country of .env does not arrive: %v", c)
	}
}

// TestOverride: the files that deploy/README.md gives for notifications fit the
// volunteer's, and what the configuration names is where it says.
func TestOverride(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for block := range strings.SplitSeq(string(readme), "```yaml\n# ") {
		name, text, _ := strings.Cut(block, "\n")
		files[name], _, _ = strings.Cut(text, "```")
	}
	override := filepath.Join(t.TempDir(), "compose.override.yml")
	if err := os.WriteFile(override, []byte(files["compose.override.yml"]), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := cli.NewProjectOptions([]string{"../compose.yml", override}, cli.WithWorkingDirectory(".."), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.GetService("agent")
	if err != nil {
		t.Fatal(err)
	}
	shutIn(t, s)
	if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Type == types.VolumeTypeBind && v.ReadOnly && v.Target == "/etc/messenger-probe/config.yaml"
	}) {
		t.Errorf("the agent has no configuration: %v", s.Volumes)
	}
	for _, secret := range s.Secrets {
		if p.Secrets[secret.Source].File == "" || !strings.Contains(files["config.yaml"], "/run/secrets/"+secret.Source+"}") {
			t.Errorf("the secret %s is not what the configuration names", secret.Source)
		}
	}
	if len(s.Secrets) != 1 {
		t.Errorf("%d secrets", len(s.Secrets))
	}
}

func TestStack(t *testing.T) {
	if _, err := load(t, "compose.stack.yml"); err == nil {
		t.Error("Grafana would start without a password")
	}
	p, err := load(t, "compose.stack.yml", "GRAFANA_PASSWORD=secret")
	if err != nil {
		t.Fatal(err)
	}
	if s := agent(t, p); s.NetworkMode != "" || len(s.Networks) != 1 {
		t.Errorf("Prometheus cannot find the agent: network_mode %q, networks %v", s.NetworkMode, s.Networks)
	}
	for _, name := range []string{"prometheus", "alertmanager", "grafana"} {
		s, err := p.GetService(name)
		if err != nil {
			t.Fatal(err)
		}
		shutIn(t, s)
	}
}

// Where Docker has Compose, it says so itself; no engine is needed.
func TestDockerCompose(t *testing.T) {
	if err := exec.Command("docker", "compose", "version").Run(); err != nil {
		t.Log("docker compose is not installed; its loader was asked above")
		return
	}
	for _, file := range []string{"compose.yml", "compose.stack.yml"} {
		c := exec.Command("docker", "compose", "-f", file, "config", "--quiet")
		c.Dir, c.Env = "..", append(c.Environ(), "GRAFANA_PASSWORD=secret")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}
