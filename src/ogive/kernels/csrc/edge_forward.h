// Forward: every target's scores, weights and weighted sum of values, one target at a time.
#pragma once

#include <optional>

#include "edge_row.h"
#include "team.h"

namespace ogive::OGIVE_ISA::edge {

// One thread where the work is too little to share.
inline int edge_threads(const EdgeProblem& p) {
  const int64_t work = (p.edges + p.targets) * p.heads * (p.width + p.value_width);
  return work < 100000 ? 1 : int(p.threads);
}

// Rows of nodes without edges are zero.
template <class T>
void clear(const EdgeRows& rows, int64_t node, int64_t heads, int64_t width) {
  for (int64_t h = 0; h < heads; ++h) std::fill_n(rows.at<T>(node, h), width, T(0));
}

template <class T>
__attribute__((noinline)) void mix(const EdgeProblem& p, EdgeRow<T>& row, int64_t i) {
  row.over(p.value, [&](int64_t e, const Gathered<T>& values) {
    add_rows<T>(row.lanes, values, p.value_width, row.value_tail,
                row.scores.get() + e * row.lanes.stride, {heads_of<T>(p.out, i), e > 0});
  });
}

template <class T, class Weight>
void target_forward(const EdgeProblem& p, EdgeRow<T>& row, int64_t i) {
  if (!row.open(i)) return clear<T>(p.out, i, p.heads, p.value_width);
  row.score(i, false, Weight::pad);
  T* s = row.scores.get();
  row.over_columns(i, [&](const Column& column, int64_t at, Vec<T> c) {
    Weight::weigh(column, s + at, row.spare.get(), c, bool(p.constant));
  });
  row.hide(s);
  row.drop(s);
  mix(p, row, i);
}

template <class T, class Weight>
void edge_forward(const EdgeProblem& p) {
  constexpr int64_t block = 64;
  Terms<T> terms(p, false);
  Team team;
#pragma omp parallel num_threads(edge_threads(p))
  {
    terms.find();
    std::optional<EdgeRow<T>> row;
    team.run([&] { row.emplace(p, terms); });
#pragma omp for schedule(dynamic, block)
    for (int64_t i = 0; i < p.targets; ++i)
      team.run([&] { target_forward<T, Weight>(p, *row, i); });
  }
  team.end();
}

}  // namespace ogive::OGIVE_ISA::edge
