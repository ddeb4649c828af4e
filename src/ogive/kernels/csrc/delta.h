// delta_i = Σ_v grad_out_iv · out_iv, which every weight function that shares a row needs backward.
#pragma once

#include "pack.h"

namespace ogive::OGIVE_ISA {

template <class T, Kind K>
T row_delta(const Problem& p, int64_t b, int64_t h, int64_t i) {
  using Type = typename Stored<T, K>::Type;
  const Type* out = p.out.at<const Type>(b, h, i);
  const Type* grad = p.grad_out.at<const Type>(b, h, i);
  const int64_t across = p.out.stride[3], along = p.grad_out.stride[3];
  Vec<T> sums{};
  for (int64_t k = 0; k < p.value_width; k += Lanes<T>::count)
    sums += load_some<T, K>(out + k * across, across, p.value_width - k) *
            load_some<T, K>(grad + k * along, along, p.value_width - k);
  return sum<T>(sums);
}

// Fills p.delta, where there is one; out and grad_out are of one kind.
template <class T>
void fill_delta(const Problem& p) {
  if (!p.delta) return;
  const int64_t heads = p.batch * p.heads;
  with_kind<T>(p.out, [&](auto kind) {
#pragma omp parallel for num_threads(p.threads) if (p.threads > 1) schedule(static)
    for (int64_t u = 0; u < heads; ++u)
      for (int64_t i = 0; i < p.queries; ++i)
        *p.delta.at<T>(u / p.heads, u % p.heads, i) =
            row_delta<T, decltype(kind)::value>(p, u / p.heads, u % p.heads, i);
  });
}

}  // namespace ogive::OGIVE_ISA
