// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package jobstate

import (
	"slices"
	"strconv"
	"strings"
)

// Indexes is a set of completion indexes as ordered intervals, of which no two touch. The zero value is the empty set. Sets are never
// changed in place.
type Indexes []interval

// interval is the indexes from first to last, both included.
type interval struct{ first, last int }

// ParseIndexes reads the form that Job.status.completedIndexes has, such as "0,2-5,7", and leaves out what isn't below the limit. What
// can't be read is left out too, as upstream does: only another writer can have made it.
func ParseIndexes(text string, below int) Indexes {
	var out Indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		if last = min(last, below-1); first <= last {
			out = append(out, interval{first, last})
		}
	}
	return out.normal()
}

// IndexesOf is the set of those indexes, in any order.
func IndexesOf(indexes ...int) Indexes {
	out := make(Indexes, 0, len(indexes))
	for _, i := range indexes {
		out = append(out, interval{i, i})
	}
	return out.normal()
}

// normal sorts intervals and joins those that overlap or touch. It works in place.
func (s Indexes) normal() Indexes {
	slices.SortFunc(s, func(a, b interval) int { return a.first - b.first })
	out := s[:0]
	for _, next := range s {
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return out
}

// String is the compressed form that upstream writes: two neighbours with a comma, more of them with a dash.
func (s Indexes) String() string {
	var b strings.Builder
	for _, v := range s {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(v.first))
		switch {
		case v.last == v.first+1:
			b.WriteByte(',')
			b.WriteString(strconv.Itoa(v.last))
		case v.last > v.first:
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(v.last))
		}
	}
	return b.String()
}

// Len is the number of indexes in the set.
func (s Indexes) Len() int {
	n := 0
	for _, v := range s {
		n += v.last - v.first + 1
	}
	return n
}

// Has says whether the set holds the index.
func (s Indexes) Has(index int) bool {
	i, found := slices.BinarySearchFunc(s, index, func(v interval, index int) int {
		switch {
		case v.last < index:
			return -1
		case v.first > index:
			return 1
		}
		return 0
	})
	return found && i < len(s)
}

// Union is the set of the indexes that are in one of the two.
func (s Indexes) Union(other Indexes) Indexes {
	out := make(Indexes, 0, len(s)+len(other))
	return append(append(out, s...), other...).normal()
}

// Common is how many indexes are in both sets.
func (s Indexes) Common(other Indexes) int {
	n, i, j := 0, 0, 0
	for i < len(s) && j < len(other) {
		if overlap := min(s[i].last, other[j].last) - max(s[i].first, other[j].first) + 1; overlap > 0 {
			n += overlap
		}
		if s[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// Missing are the lowest n indexes below the limit that the set doesn't hold, in order. It takes time by the number of intervals
// and by n, not by the limit.
func (s Indexes) Missing(n, below int) []int {
	var out []int
	next := 0
	for _, v := range s {
		for ; next < v.first && next < below && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, v.last+1)
	}
	for ; next < below && len(out) < n; next++ {
		out = append(out, next)
	}
	return out
}
