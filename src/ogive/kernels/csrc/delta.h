// delta_i = Σ_v grad_out_iv · out_iv (− ∂/∂lse_i), which every weight function that shares a row needs
// backward.
//
// It is summed in the order in which ∂/∂weight = Σ_v grad_out_iv · value_jv is, by a product (tile.h) or
// in place (few.h): a query that sees one key, whose row of out is that key's value, gets no gradient
// from their difference.
#pragma once

#include <utility>

#include "few.h"

namespace ogive::OGIVE_ISA {

// Those of queries i, i + 1, …, one a lane.
template <class T, Kind K>
Vec<T> deltas(const Problem& p, int64_t b, int64_t h, int64_t i) {
  constexpr int W = Lanes<T>::count;
  Vec<T> total{}, sums{};
  for (int64_t k = 0; k < p.value_width; k += W) {
    if (k % kDeep == 0) total += std::exchange(sums, Vec<T>{});
    Vec<T> out[W], grad[W];
    const auto read = [&](const View& view, int64_t r) {
      if (i + r >= p.queries) return Vec<T>{};
      const auto* row = view.at<const typename Stored<T, K>::Type>(b, h, i + r);
      return load_some<T, K>(row + k * view.stride[3], view.stride[3], p.value_width - k);
    };
    for (int r = 0; r < W; ++r) out[r] = read(p.out, r), grad[r] = read(p.grad_out, r);
    transpose<T>(out);
    transpose<T>(grad);
    for (int64_t c = 0; c < std::min<int64_t>(W, p.value_width - k); ++c) sums += grad[c] * out[c];
  }
  return total + sums;
}

// The same for calls that are computed in place.
template <class T>
void add_few_deltas(const Problem& p) {
  Buffer<T> row;
  T *grad = row.need(p.value_width), some[Lanes<T>::count];
  Watch<T> nobody;
  for (int64_t u = 0; u < p.batch * p.heads; ++u)
    for (int64_t b = u / p.heads, h = u % p.heads, i = 0; i < p.queries; ++i) {
      pack_rows<T>({p.grad_out, b, h, i, 1, p.value_width}, 1, grad, p.value_width, nobody);
      score_few<T>({p.out, b, h, i, 1, p.value_width}, {0, 1}, 1, grad, 0, some, 0, nobody);
      *p.delta.at<T>(b, h, i) += some[0];
    }
}

// Adds them to p.delta, where there is one: it holds −∂/∂lse, or zeros. out and grad_out are of one
// kind.
template <class T>
void add_delta(const Problem& p) {
  if (!p.delta) return;
  if (reads_in_place(p)) return add_few_deltas<T>(p);
  constexpr int W = Lanes<T>::count;
  const int64_t heads = p.batch * p.heads;
  with_kind<T>(p.out, [&](auto kind) {
#pragma omp parallel for num_threads(p.threads) if (p.threads > 1) schedule(static)
    for (int64_t u = 0; u < heads; ++u)
      for (int64_t i = 0; i < p.queries; i += W) {
        const Vec<T> some = deltas<T, decltype(kind)::value>(p, u / p.heads, u % p.heads, i);
        for (int64_t r = 0; r < std::min<int64_t>(W, p.queries - i); ++r)
          *p.delta.at<T>(u / p.heads, u % p.heads, i + r) += some[r];
      }
  });
}

}  // namespace ogive::OGIVE_ISA
