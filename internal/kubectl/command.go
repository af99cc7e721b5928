// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	// Credentials by exec plugins and the like, as kubectl knows them.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/pinnace-dev/pinnace/internal/version"
)

// name is how users call the program.
const name = "kubectl pinnace"

// groups are the commands of kubectl's that work on Pinnace's kinds, as the help lists them.
var groups = []struct {
	message  string
	commands []string
}{
	{"Troubleshooting and Debugging Commands:", []string{"logs", "exec", "attach", "cp", "port-forward", "debug", "top", "describe"}},
	{"Deploy Commands:", []string{"rollout", "scale", "autoscale", "set", "run", "expose", "create", "apply"}},
	{"Object Commands:", []string{"get", "wait", "edit", "patch", "label", "annotate", "delete"}},
	{"Node Commands:", []string{"drain", "cordon", "uncordon", "taint"}},
}

// others are commands of kubectl's own that stay as they are.
var others = []string{"options", "completion", "api-resources"}

// Run is the program: it runs the command that the arguments name, the program's name first, and ends the process with
// kubectl's exit status.
func Run(arguments []string) {
	_, _ = logs.GlogSetter(kubectlcmd.GetLogVerbosity(arguments)) // What is no number the flag itself refuses.
	command := NewCommand(arguments, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	if word := firstWord(arguments[1:]); word != "" && !knows(command, word) {
		handOver(arguments, word)
	}
	if err := cli.RunNoErrOutput(command); err != nil {
		cmdutil.CheckErr(err)
	}
}

// NewCommand returns kubectl's root command with the commands that work on Pinnace's kinds.
func NewCommand(arguments []string, streams genericiooptions.IOStreams) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50.0).WithWarningPrinter(streams)
	flags.WithWrapConfigFn(func(config *rest.Config) *rest.Config {
		config.UserAgent = "kubectl-pinnace/" + version.Version
		return Wrap(config)
	})
	root := kubectlcmd.NewKubectlCommand(kubectlcmd.KubectlOptions{Arguments: arguments, ConfigFlags: flags, IOStreams: streams})
	keepCache(root, flags)

	byName := map[string]*cobra.Command{}
	for _, command := range root.Commands() {
		byName[command.Name()] = command
	}
	shown := templates.CommandGroups{}
	kept := slices.Clone(others)
	for _, group := range groups {
		list := templates.CommandGroup{Message: group.message}
		for _, word := range group.commands {
			if command := byName[word]; command != nil {
				list.Commands = append(list.Commands, command)
				kept = append(kept, word)
			}
		}
		shown = append(shown, list)
	}
	for word, command := range byName {
		if !slices.Contains(kept, word) {
			root.RemoveCommand(command)
		}
	}
	root.Use = "kubectl-pinnace"
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	root.Short = "kubectl's commands on Pinnace's kinds"
	root.Long = "kubectl's own commands on Pinnace's kinds: where kubectl says pods, Pinnace's pods are meant.\n\n" +
		"Commands that aren't listed, such as convert and image, are handed to the program pinnace."
	sayName(root)
	templates.ActsAsRootCommand(root, []string{"options"}, shown...)
	return root
}

// keepCache gives discovery a folder of its own: what we make of it is nothing for kubectl.
func keepCache(root *cobra.Command, flags *genericclioptions.ConfigFlags) {
	before := root.PersistentPreRunE
	root.PersistentPreRunE = func(command *cobra.Command, args []string) error {
		*flags.CacheDir = filepath.Join(*flags.CacheDir, "pinnace")
		return before(command, args)
	}
}

// sayName puts the program's name into the examples.
func sayName(command *cobra.Command) {
	command.Example = strings.ReplaceAll(command.Example, "kubectl ", name+" ")
	command.Long = strings.ReplaceAll(command.Long, "'kubectl ", "'"+name+" ")
	for _, child := range command.Commands() {
		sayName(child)
	}
}

// firstWord is the first argument that is no flag. A flag's value in front of it is taken for it; then the command's own
// parser speaks.
func firstWord(arguments []string) string {
	if len(arguments) == 0 || strings.HasPrefix(arguments[0], "-") {
		return ""
	}
	return arguments[0]
}

func knows(root *cobra.Command, word string) bool {
	if slices.Contains([]string{"help", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, word) {
		return true
	}
	for _, command := range root.Commands() {
		if command.Name() == word || command.HasAlias(word) {
			return true
		}
	}
	return false
}

// handOver runs the program pinnace, beside this one or in the path, in this process's place. It returns never.
func handOver(arguments []string, word string) {
	if isKubectls(word) {
		fmt.Fprintf(os.Stderr, "error: %s has no %s: it isn't about Pinnace's kinds, or does the same in kubectl itself: kubectl %s\n",
			name, word, strings.Join(arguments[1:], " "))
		os.Exit(1)
	}
	program, err := besides("pinnace")
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: unknown command %q for %q, and no program pinnace to ask: %v\n", word, name, err)
		os.Exit(1)
	}
	if err := syscall.Exec(program, append([]string{"kubectl-pinnace"}, arguments[1:]...), os.Environ()); err != nil {
		fmt.Fprintf(os.Stderr, "error: running %s: %v\n", program, err)
		os.Exit(1)
	}
}

// isKubectls tells commands that kubectl has and that were left to it.
func isKubectls(word string) bool {
	return slices.Contains([]string{
		"alpha", "api-versions", "auth", "certificate", "cluster-info", "config", "diff", "events", "explain", "kuberc", "kustomize", "plugin", "proxy",
		"replace", "version",
	}, word)
}

func besides(program string) (string, error) {
	if own, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(own), program)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(program)
}
