// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// memory is what the process knows beside the API: which events it sent, which names it found to be held by others, which job it may have made. Losing it costs
// an event that is said twice and a creation that is refused again. All methods may be called concurrently.
type memory struct {
	mu sync.Mutex
	// said is, by CronJob and reason, what the last event was about.
	said map[types.UID]map[string]string
	// foreign is, by CronJob, the one name that was found to be taken last: older ones are never tried again.
	foreign map[types.UID]string
	// doubt is, by CronJob, the job of which nobody knows whether the API server made it: its answer was lost.
	doubt map[types.UID]string
}

// doubted returns the name of the job in doubt, empty when there is none.
func (m *memory) doubted(cj types.UID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doubt[cj]
}

// setDoubt notes a job as in doubt; an empty name ends the doubt.
func (m *memory) setDoubt(cj types.UID, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.doubt == nil {
		m.doubt = map[types.UID]string{}
	}
	m.doubt[cj] = name
	if name == "" {
		delete(m.doubt, cj)
	}
}

// isNew says whether an event wasn't sent yet, and notes that it is sent now.
func (m *memory) isNew(cj types.UID, n note) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said == nil {
		m.said = map[types.UID]map[string]string{}
	}
	if m.said[cj] == nil {
		m.said[cj] = map[string]string{}
	}
	if m.said[cj][n.reason] == n.about {
		return false
	}
	m.said[cj][n.reason] = n.about
	return true
}

// taken notes that a name is held by somebody else's job, and returns the taken names.
func (m *memory) taken(cj types.UID, name string) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.foreign == nil {
		m.foreign = map[types.UID]string{}
	}
	m.foreign[cj] = name
	return map[string]bool{name: true}
}

func (m *memory) takenNames(cj types.UID) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name, ok := m.foreign[cj]; ok {
		return map[string]bool{name: true}
	}
	return nil
}

func (m *memory) forget(cj types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.said, cj)
	delete(m.foreign, cj)
	delete(m.doubt, cj)
}
