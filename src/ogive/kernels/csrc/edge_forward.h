// Forward: every target's scores, weights and weighted sum of values, one target at a time.
#pragma once

#include "edge_row.h"
#include "edge_weigh.h"

namespace ogive::OGIVE_ISA::edge {

// One thread where the work is too little to share.
inline int edge_threads(const EdgeProblem& p) {
  const int64_t work = (p.edges + p.targets) * p.heads * (p.width + p.value_width);
  return work < 100000 ? 1 : int(p.threads);
}

// Rows of targets without edges, and of those before their sums are added, are zero.
template <class T>
void clear(const EdgeRows& rows, int64_t node, int64_t heads, int64_t width) {
  for (int64_t h = 0; h < heads; ++h) std::fill_n(rows.at<T>(node, h), width, T(0));
}

template <class T>
T constant_of(const EdgeProblem& p, int64_t i, int64_t h) {
  return p.constant ? *p.constant.at<const T>(i, h) : T(0);
}

template <class T>
__attribute__((noinline)) void mix(const EdgeProblem& p, EdgeRow<T>& row, int64_t i) {
  row.over(p.value, [&](int64_t e, int64_t count) {
    for (int64_t h = 0; h < p.heads; ++h)
      add_rows<T>(row.gathered, count, h * p.value.head, p.value_width, row.value_tail,
                  row.of(row.scores, h) + e, p.out.at<T>(i, h));
  });
}

template <class T, class Weight>
void edge_forward(const EdgeProblem& p) {
  constexpr int64_t block = 16;
#pragma omp parallel num_threads(edge_threads(p))
  {
    EdgeRow<T> row(p);
#pragma omp for schedule(dynamic, block)
    for (int64_t i = 0; i < p.targets; ++i) {
      clear<T>(p.out, i, p.heads, p.value_width);
      if (!row.open(i)) continue;
      row.score(i, false, Weight::pad);
      row.spare.need(row.ld);
      for (int64_t h = 0; h < p.heads; ++h) {
        T* s = row.of(row.scores, h);
        Weight::weigh(s, row.spare.get(), row.n, constant_of<T>(p, i, h), bool(p.constant));
        row.hide(h, s);
        row.drop(h, s);
      }
      mix(p, row, i);
    }
  }
}

}  // namespace ogive::OGIVE_ISA::edge
