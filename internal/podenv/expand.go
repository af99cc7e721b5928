// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import "strings"

// Expand replaces $(NAME) by the variable's value; a reference to a variable that isn't there stays as it is, and $$
// stands for a dollar sign, so that $$(NAME) is never expanded.
func Expand(in string, value func(name string) (string, bool)) string {
	if !strings.Contains(in, "$") {
		return in
	}
	var out strings.Builder
	for i := 0; i < len(in); i++ {
		if in[i] != '$' || i+1 == len(in) {
			out.WriteByte(in[i])
			continue
		}
		i++
		switch in[i] {
		case '$':
			out.WriteByte('$')
		case '(':
			end := strings.IndexByte(in[i:], ')')
			if end < 0 {
				out.WriteString("$(")
				continue
			}
			name := in[i+1 : i+end]
			if v, ok := value(name); ok {
				out.WriteString(v)
			} else {
				out.WriteString("$(" + name + ")")
			}
			i += end
		default:
			out.WriteByte('$')
			out.WriteByte(in[i])
		}
	}
	return out.String()
}

// ExpandAll expands each string with the variables of env.
func ExpandAll(in []string, env []Variable) []string {
	if len(in) == 0 {
		return nil
	}
	values := make(map[string]string, len(env))
	for _, v := range env {
		values[v.Name] = v.Value
	}
	out := make([]string, len(in))
	for i := range in {
		out[i] = Expand(in[i], func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	}
	return out
}
