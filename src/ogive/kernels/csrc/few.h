// Few queries, as when decoding: keys and values are read where they lie and never packed.
//
// Packing pays when many rows meet a panel. One row against it only moves memory twice.
#pragma once

#include <algorithm>
#include <type_traits>

#include "pack.h"
#include "problem.h"

namespace ogive::OGIVE_ISA {

// More queries were measured to be faster packed, and where heads share keys any but one are. Forward
// and backward read alike: a score that was summed in another order is another score, and the weight of
// a query's only key no longer 1.
constexpr int64_t kFew = 4;
inline bool reads_in_place(const Problem& p) {
  return p.queries <= (p.heads == p.shared ? kFew : 1) && !p.apart && !p.act;
}

// For what may be anything, or was looked at before.
template <class T>
struct Nobody {
  void see(Vec<T>, T) {}
};

// The sums of W vectors, one in each lane, added in an order that nothing changes.
template <class T>
Vec<T> sums_of(Vec<T>* each) {
  constexpr int W = Lanes<T>::count;
  transpose<T>(each);
#pragma GCC unroll 4
  for (int step = W / 2; step > 0; step /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < step; ++i) each[i] += each[i + step];
  return each[0];
}

// to[j] = query · key_j for W keys.
template <class T, Kind K, class Watcher>
void score_keys(const typename Stored<T, K>::Type* const* key, int64_t stride, int64_t width,
                const T* query, T* to, Watcher& watch) {
  constexpr int W = Lanes<T>::count;
  Vec<T> each[W] = {};
  int64_t k = 0;
  if (stride == 1)
    for (; k + W <= width; k += W) {
      const Vec<T> q = load<T>(query + k);
#pragma GCC unroll 16
      for (int c = 0; c < W; ++c) {
        const Vec<T> v = Stored<T, K>::load(key[c] + k);
        watch.see(v, kModest<T>);
        each[c] += q * v;
      }
    }
  for (; k < width; k += W) {
    const Vec<T> q = load_some<T, kOwn>(query + k, 1, width - k);
    for (int c = 0; c < W; ++c) {
      const Vec<T> v = load_some<T, K>(key[c] + k * stride, stride, width - k);
      watch.see(v, kModest<T>);
      each[c] += q * v;
    }
  }
  store<T>(to, sums_of<T>(each));
}

// to[r][j] = query_r · key_j for the keys of `span`, up to W − 1 beyond its end; queries lie `across`
// apart, rows of `to` `ldc`.
template <class T>
void score_few(const Rows& keys, Span span, int64_t rows, const T* query, int64_t across, T* to,
               int64_t ldc, Watch<T>& watcher) {
  constexpr int W = Lanes<T>::count;
  with_kind<T>(keys.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    using Type = typename Stored<T, K>::Type;
    Watch<T> watch = watcher;
    Nobody<T> nobody;
    const int64_t stride = keys.view.stride[3], width = keys.columns;
    for (int64_t j = span.low; j < span.high; j += W) {
      const Type* key[W];
      for (int c = 0; c < W; ++c)
        key[c] = keys.view.template at<Type>(keys.b, keys.h,
                                             keys.first + std::min(j + c, keys.rows - 1));
      score_keys<T, K>(key, stride, width, query, to + j, watch);
      for (int64_t r = 1; r < rows; ++r)
        score_keys<T, K>(key, stride, width, query + r * across, to + r * ldc + j, nobody);
    }
    watcher = watch;
  });
}

// Vectors [first, first + Count) of the rows of out += weights · values.
template <class T, Kind K, int Count, class Watcher>
void spend_vectors(const Rows& values, Span span, const T* weights, int64_t first, T* out,
                   Watcher& watch) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Count] = {};  // added at the end: a sum of sums rounds less than one long sum
  using Type = typename Stored<T, K>::Type;
  const int64_t stride = values.view.stride[3], left = values.columns - first;
  const Type* from = values.view.template at<Type>(values.b, values.h, values.first + span.low);
  from += first * stride;
  for (int64_t j = span.low; j < span.high; ++j, from += values.view.stride[2]) {
    const Vec<T> weight = splat<T>(weights[j]);
#pragma GCC unroll 8
    for (int c = 0; c < Count; ++c) {
      const Vec<T> v = Count > 1 ? Stored<T, K>::load(from + c * W)
                                 : load_some<T, K>(from, stride, left);
      watch.see(v, kModest<T>);
      sums[c] += weight * v;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < Count; ++c) {
    T* to = out + first + c * W;
    store<T>(to, load<T>(to) + sums[c]);
  }
}

// Calls work(how many vectors, first column) for a row: as many at once as registers hold, and one where
// it is not whole or its numbers lie apart.
template <class T, class Work>
void by_vectors(const Rows& rows, const Work& work) {
  constexpr int W = Lanes<T>::count;
  const bool close = rows.view.stride[3] == 1;
  int64_t k = 0;
  for (; close && k + 8 * W <= rows.columns; k += 8 * W) work(std::integral_constant<int, 8>{}, k);
  for (; close && k + 4 * W <= rows.columns; k += 4 * W) work(std::integral_constant<int, 4>{}, k);
  for (; k < rows.columns; k += W) work(std::integral_constant<int, 1>{}, k);
}

// out += Σ_j weights[j] value_j over the keys of `span`.
template <class T, Kind K, class Watcher>
void spend_row(const Rows& values, Span span, const T* weights, T* out, Watcher& watch) {
  by_vectors<T>(values, [&](auto count, int64_t k) {
    spend_vectors<T, K, decltype(count)::value>(values, span, weights, k, out, watch);
  });
}

// out[r] += Σ_j weights[r][j] value_j over the keys of `span`; rows of out are `across` apart.
template <class T, class Watcher>
void spend_few(const Rows& values, Span span, int64_t rows, const T* weights, int64_t ldc, T* out,
               int64_t across, Watcher& watcher) {
  with_kind<T>(values.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    Watcher watch = watcher;
    Nobody<T> nobody;
    spend_row<T, K>(values, span, weights, out, watch);
    for (int64_t r = 1; r < rows; ++r)
      spend_row<T, K>(values, span, weights + r * ldc, out + r * across, nobody);
    watcher = watch;
  });
}

}  // namespace ogive::OGIVE_ISA
