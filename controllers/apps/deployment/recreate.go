// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

// recreate takes one step of a Recreate rollout: no pod of the new revision starts before the last pod of the old ones has ended.
func (b *board) recreate(p *plan) error {
	for _, s := range b.old {
		s.size = 0
	}
	if b.oldPodsRun() {
		return nil
	}
	if b.newest == nil {
		rs, err := b.makeReplicaSet(b.settings.replicas)
		p.create = rs
		return err
	}
	b.newest.size = b.settings.replicas
	if complete(b.deployment, &b.settings, &b.deployment.Status) {
		p.remove = b.surplus()
	}
	return nil
}

// oldPodsRun says whether a pod of an old revision may still run. A ReplicaSet whose controller hasn't seen its last size
// yet may have more pods than it says.
func (b *board) oldPodsRun() bool {
	for _, s := range b.old {
		st := &s.rs.Status
		if s.replicas() > 0 || st.Replicas > 0 || s.rs.Generation > st.ObservedGeneration {
			return true
		}
		if st.TerminatingReplicas != nil && *st.TerminatingReplicas > 0 {
			return true
		}
	}
	return false
}
