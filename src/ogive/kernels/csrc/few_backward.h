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
  static_assert(kFew == 1);                      // a member of a group has one row
  Buffer<T> query, grad_out, weights, gradients;  // a row for each member
  Sight<T, {kFew, kSpan}> sight;
  Watch<T> watch;
  T slopes[kSpan], stay[kSpan];

  void reserve(const Problem& p) {
    const int64_t group = p.heads / p.shared;
    query.need(group * wide<T>(p.width));
    grad_out.need(group * wide<T>(p.value_width));
    weights.need(group * kSpan);
    gradients.need(group * kSpan);
    sight.reserve(p);
  }
};

// Vectors [first, first + Count) of the rows of Σ_m factors[m][row] · each[m].
template <class T, Kind K, int Count>
void write_vectors(const Rows& into, int64_t members, const T* factors, const T* each,
                   int64_t across, int64_t first) {
  constexpr int W = Lanes<T>::count;
  using Type = typename Stored<T, K>::Type;
  const int64_t stride = into.view.stride[3], left = into.columns - first;
  Type* to = into.view.template at<Type>(into.b, into.h, into.first) + first * stride;
  for (int64_t j = 0; j < into.rows; ++j, to += into.view.stride[2]) {
    Vec<T> sums[Count] = {};
    for (int64_t m = 0; m < members; ++m) {
      const Vec<T> factor = splat<T>(factors[m * kSpan + j]);
#pragma GCC unroll 8
      for (int c = 0; c < Count; ++c) sums[c] += factor * load<T>(each + m * across + first + c * W);
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
  constexpr int W = Lanes<T>::count;
  with_kind<T>(into.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    const bool close = into.view.stride[3] == 1;
    int64_t k = 0;
    for (; close && k + 8 * W <= into.columns; k += 8 * W)
      write_vectors<T, K, 8>(into, members, factors, each, across, k);
    for (; close && k + 4 * W <= into.columns; k += 4 * W)
      write_vectors<T, K, 4>(into, members, factors, each, across, k);
    for (; k < into.columns; k += W)
      write_vectors<T, K, 1>(into, members, factors, each, across, k);
  });
}

// The query of head h against one span of keys: its weights and ∂/∂scores, and what it takes.
template <class T, class Slope>
void few_member(const Problem& p, const Place& at, int64_t g, int64_t member, FewBack<T>& mine,
                T* sums) {
  const int64_t across = wide<T>(p.width), value_across = wide<T>(p.value_width);
  T *weights = mine.weights.get() + member * kSpan, *grads = mine.gradients.get() + member * kSpan;
  std::fill(weights, weights + kSpan, T(0));
  std::fill(grads, grads + kSpan, T(0));
  T* query = mine.query.get() + member * across;
  T* grad_out = mine.grad_out.get() + member * value_across;
  Watch<T> nobody;  // a gradient may be anything
  pack_rows<T>({p.query, at.b, at.h, 0, 1, p.width}, query_factor<T>(p), query, across, mine.watch);
  pack_rows<T>({p.grad_out, at.b, at.h, 0, 1, p.value_width}, 1, grad_out, value_across, nobody);
  if (!mine.sight.look(p, at, mine.watch)) return;
  const Rows keys{p.key, at.b, g, at.start, at.columns, p.width};
  const Rows values{p.value, at.b, g, at.start, at.columns, p.value_width};
  const Span& seen = mine.sight.groups[0];
  score_few<T>(keys, seen, 1, query, weights, kSpan, mine.watch);
  score_few<T>(values, seen, 1, grad_out, grads, kSpan, mine.watch);
  turn_queries<T, Slope>(p, at, mine, weights, grads);
  mine.sight.narrow(1);
  spend_few<T>(keys, seen, 1, grads, kSpan, sums, across, nobody);
}

template <class T, class Slope>
void few_span(const Problem& p, int64_t b, int64_t g, int64_t j0, FewBack<T>& mine, T* totals) {
  const int64_t group = p.heads / p.shared, columns = std::min(kSpan, p.keys - j0);
  for (int64_t member = 0; member < group; ++member)
    few_member<T, Slope>(p, {b, g * group + member, 0, 1, j0, columns, true}, g, member, mine,
                         totals + member * Totals::of(p, T{}).member);
  write_products<T>({p.grad_key, b, g, j0, columns, p.width}, group, mine.gradients.get(),
                    mine.query.get(), wide<T>(p.width));
  write_products<T>({p.grad_value, b, g, j0, columns, p.value_width}, group, mine.weights.get(),
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
