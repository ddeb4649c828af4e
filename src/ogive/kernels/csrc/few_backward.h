// Backward of few queries: keys and values are read where they lie, and each row of their gradients is
// written once, whole.
#pragma once

#include <algorithm>

#include "apart.h"
#include "few.h"
#include "hands.h"
#include "turn.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct FewBack {
  static_assert(kFew <= kRows);  // the queries of a head are one group of a tile
  Buffer<T> query, grad_out, weights, gradients;  // a row for each query of each member of a group
  Sight<T, {kFew, kSpan}> sight;
  Watch<T> watch;
  T slopes[kSpan], stay[kSpan];

  void reserve(const Problem& p) {
    const int64_t rows = p.heads / p.shared * p.queries;
    query.need(rows * wide<T>(p.width));
    grad_out.need(rows * wide<T>(p.value_width));
    weights.need(rows * kSpan);
    gradients.need(rows * kSpan);
    sight.reserve(p);
  }
};

// sums[c] = Σ_m factors[m] · vector c of each[m], for members from `low` up to `high`.
template <class T, int Count>
inline void add_members(int64_t low, int64_t high, const T* factors, const T* each, int64_t across,
                        Vec<T>* sums) {
#pragma GCC unroll 8
  for (int c = 0; c < Count; ++c) sums[c] = Vec<T>{};
  for (int64_t m = low; m < high; ++m) {
    const Vec<T> factor = splat<T>(factors[m * kSpan]);
#pragma GCC unroll 8
    for (int c = 0; c < Count; ++c)
      sums[c] += factor * load<T>(each + m * across + c * Lanes<T>::count);
  }
}

// Vectors [first, first + Count) of the rows of Σ_m factors[m][row] · each[m]. A long sum is a sum of
// short ones (tile.h).
template <class T, Kind K, int Count>
void write_vectors(const Rows& into, int64_t members, const T* factors, const T* each,
                   int64_t across, int64_t first) {
  constexpr int W = Lanes<T>::count;
  using Type = typename Stored<T, K>::Type;
  const int64_t stride = into.view.stride[3], left = into.columns - first;
  Type* to = into.view.template at<Type>(into.b, into.h, into.first) + first * stride;
  each += first;
  for (int64_t j = 0; j < into.rows; ++j, to += into.view.stride[2]) {
    Vec<T> sums[Count], more[Count];
    add_members<T, Count>(0, std::min(members, kShallow<T>), factors + j, each, across, sums);
    for (int64_t m = kShallow<T>; m < members; m += kShallow<T>) {
      add_members<T, Count>(m, std::min(members, m + kShallow<T>), factors + j, each, across, more);
#pragma GCC unroll 8
      for (int c = 0; c < Count; ++c) sums[c] += more[c];
    }
    if constexpr (Count == 1)
      store_some<T, K>(to, stride, left, sums[0]);
    else
#pragma GCC unroll 8
      for (int c = 0; c < Count; ++c) Stored<T, K>::store(to + c * W, sums[c]);
  }
}

// Rows of Σ_m factors[m][row] · each[m], the vectors `across` apart.
template <class T>
void write_products(const Rows& into, int64_t members, const T* factors, const T* each,
                    int64_t across) {
  with_kind<T>(into.view, [&](auto kind) {
    by_vectors<T>(into, [&](auto count, int64_t k) {
      write_vectors<T, decltype(kind)::value, decltype(count)::value>(into, members, factors, each,
                                                                      across, k);
    });
  });
}

// The queries of a head against one span of keys: weights and ∂/∂scores, and what they take.
template <class T, class Slope>
void few_member(const Problem& p, const Place& at, int64_t g, int64_t member, FewBack<T>& mine,
                T* sums) {
  const int64_t across = wide<T>(p.width), value_across = wide<T>(p.value_width);
  const int64_t first = member * p.queries;
  T *weights = mine.weights.get() + first * kSpan, *grads = mine.gradients.get() + first * kSpan;
  T* query = mine.query.get() + first * across;
  T* grad_out = mine.grad_out.get() + first * value_across;
  std::fill(weights, weights + at.rows * kSpan, T(0));
  std::fill(grads, grads + at.rows * kSpan, T(0));
  Watch<T> nobody;  // a gradient may be anything
  pack_rows<T>({p.query, at.b, at.h, 0, at.rows, p.width}, query_factor<T>(p), query, across,
               mine.watch);
  pack_rows<T>({p.grad_out, at.b, at.h, 0, at.rows, p.value_width}, 1, grad_out, value_across,
               nobody);
  if (!mine.sight.look(p, at, mine.watch)) return;
  const Rows keys{p.key, at.b, g, at.start, at.columns, p.width};
  const Rows values{p.value, at.b, g, at.start, at.columns, p.value_width};
  const Span& seen = mine.sight.groups[0];
  score_few<T>(keys, seen, at.rows, query, across, weights, kSpan, mine.watch);
  score_few<T>(values, seen, at.rows, grad_out, value_across, grads, kSpan, mine.watch);
  turn_queries<T, Slope>(p, at, mine, weights, grads);
  mine.sight.narrow(at.rows);
  Nobody<T> seen_before;
  spend_few<T>(keys, seen, at.rows, grads, kSpan, sums, across, seen_before);
}

template <class T, class Slope>
void few_span(const Problem& p, int64_t b, int64_t g, int64_t j0, FewBack<T>& mine, T* totals) {
  const int64_t group = p.heads / p.shared, columns = std::min(kSpan, p.keys - j0);
  for (int64_t member = 0; member < group; ++member)
    few_member<T, Slope>(p, {b, g * group + member, 0, p.queries, j0, columns, true}, g, member,
                         mine, totals + member * Totals::of(p, T{}).member);
  const int64_t rows = group * p.queries;
  write_products<T>({p.grad_key, b, g, j0, columns, p.width}, rows, mine.gradients.get(),
                    mine.query.get(), wide<T>(p.width));
  write_products<T>({p.grad_value, b, g, j0, columns, p.value_width}, rows, mine.weights.get(),
                    mine.grad_out.get(), wide<T>(p.value_width));
}

template <class T, class Slope>
void few_backward(const Problem& p) {
  by_hands<T, FewBack<T>>(p, (p.keys + kSpan - 1) / kSpan,
                          [&](int64_t b, int64_t g, int64_t span, FewBack<T>& mine, T* totals) {
                            few_span<T, Slope>(p, b, g, span * kSpan, mine, totals);
                          });
}

}  // namespace ogive::OGIVE_ISA
