// Arithmetic with gathered rows: products, sums of curves, weighted sums. Rows are read where they
// lie, at most kGathered at a time, so that they stay near while every head passes over them.
#pragma once

#include "curves.h"

namespace ogive::OGIVE_ISA::edge {

constexpr int64_t kGathered = 64;

// Asks for a row, at most a kilobyte of it.
inline void fetch(const void* row, int64_t bytes) {
  for (int64_t at = 0; at < bytes && at < 1024; at += 64)
    __builtin_prefetch(static_cast<const char*>(row) + at);
}

// The features beyond the last whole vector: loaded with zeros behind them.
template <class T>
struct Tail {
  static constexpr int W = Lanes<T>::count;
  int64_t count;
#if OGIVE_VECTOR_BYTES == 32
  __m256i mask;
#endif

  explicit Tail(int64_t width) : count(width % W) {
#if OGIVE_VECTOR_BYTES == 32
    alignas(32) typename Lanes<T>::Integer lanes[W];
    for (int k = 0; k < W; ++k) lanes[k] = k < count ? -1 : 0;
    mask = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
#endif
  }
  Vec<T> load(const T* from) const {
#if OGIVE_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4)
      return (Vec<T>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
    else
      return (Vec<T>)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), from);
#elif OGIVE_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4)
      return (Vec<T>)_mm256_maskload_ps(from, mask);
    else
      return (Vec<T>)_mm256_maskload_pd(from, mask);
#else
    T lanes[W] = {};
    for (int64_t k = 0; k < count; ++k) lanes[k] = from[k];
    return OGIVE_ISA::load<T>(lanes);
#endif
  }
  void add(T* to, Vec<T> v) const {
    const Vec<T> sum = load(to) + v;
#if OGIVE_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)sum);
    else
      _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), (__m512d)sum);
#elif OGIVE_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4)
      _mm256_maskstore_ps(to, mask, (__m256)sum);
    else
      _mm256_maskstore_pd(to, mask, (__m256d)sum);
#else
    for (int64_t k = 0; k < count; ++k) to[k] = sum[k];
#endif
  }
};

// A vector's lanes joined by `with`, by halves.
template <class T, class With>
inline T joined(Vec<T> v, With with) {
  constexpr int W = Lanes<T>::count;
  const auto ends = [&](auto four) {
    const auto two = with(four, __builtin_shufflevector(four, four, 2, 3, 2, 3));
    return with(two, __builtin_shufflevector(two, two, 1, 0, 1, 0))[0];
  };
  const auto halves = [&](auto eight) {
    return ends(with(__builtin_shufflevector(eight, eight, 0, 1, 2, 3),
                     __builtin_shufflevector(eight, eight, 4, 5, 6, 7)));
  };
  if constexpr (W == 16)
    return halves(with(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                       __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)));
  else if constexpr (W == 8)
    return halves(v);
  else if constexpr (W == 4)
    return ends(v);
  else
    return with(v, __builtin_shufflevector(v, v, 1, 0))[0];
}

template <class T>
inline T folded(Vec<T> v) {
  return joined<T>(v, [](auto a, auto b) { return a + b; });
}

template <class T>
inline T highest(Vec<T> v) {
  return joined<T>(v, [](auto a, auto b) { return a > b ? a : b; });
}

// Whether every number is finite and of at most this size.
template <class T>
bool within(const T* values, int64_t n, T limit) {
  constexpr int64_t W = Lanes<T>::count;
  const Vec<T> most = splat<T>(limit);
  int64_t i = 0;
  for (; i + 8 * W <= n; i += 8 * W) {
    Int<T> fits = absolute<T>(load<T>(values + i)) <= most;
#pragma GCC unroll 8
    for (int k = 1; k < 8; ++k) fits &= absolute<T>(load<T>(values + i + k * W)) <= most;
    if (!joined<typename Lanes<T>::Integer>(fits, [](auto a, auto b) { return a & b; })) return false;
  }
  for (; i < n; ++i)
    if (!(std::abs(values[i]) <= limit)) return false;
  return true;
}

template <class T>
inline T product(const T* a, const T* b, int64_t width, const Tail<T>& tail) {
  constexpr int W = Lanes<T>::count;
  Vec<T> even{}, odd{};
  int64_t d = 0;
  for (; d + 2 * W <= width; d += 2 * W) {
    even += load<T>(a + d) * load<T>(b + d);
    odd += load<T>(a + d + W) * load<T>(b + d + W);
  }
  if (d + W <= width) {
    even += load<T>(a + d) * load<T>(b + d);
    d += W;
  }
  if (tail.count) odd += tail.load(a + d) * tail.load(b + d);
  return folded<T>(even + odd);
}

// Σ_d (a_d − b_d)².
template <class T>
inline T squared_distance(const T* a, const T* b, int64_t width, const Tail<T>& tail) {
  constexpr int W = Lanes<T>::count;
  Vec<T> total{};
  int64_t d = 0;
  for (; d + W <= width; d += W) {
    const Vec<T> apart = load<T>(a + d) - load<T>(b + d);
    total += apart * apart;
  }
  if (tail.count) {
    const Vec<T> apart = tail.load(a + d) - tail.load(b + d);
    total += apart * apart;
  }
  return folded<T>(total);
}

// Σ_d v_d f(a_d + b_d). Beyond the width v is zero.
template <class T, class Curve>
inline T curve_sum(const T* vector, const T* a, const T* b, int64_t width, const Tail<T>& tail,
                   Vec<T> c) {
  constexpr int W = Lanes<T>::count;
  Vec<T> total{};
  int64_t d = 0;
  for (; d + W <= width; d += W)
    total += load<T>(vector + d) * Curve::template value<T>(load<T>(a + d) + load<T>(b + d), c);
  if (tail.count)
    total += tail.load(vector + d) *
             Curve::template value<T>(tail.load(a + d) + tail.load(b + d), c);
  return folded<T>(total);
}

// to_d += Σ_e w_e row_e,d over N vectors of features; rows are seen from `own` where there is one.
// Two sums in turn round less than one, and need not wait for each other.
template <class T, int N, bool Away>
inline void add_columns(const T* const* rows, int64_t n, int64_t from, const T* w, const T* own,
                        T* to) {
  constexpr int W = Lanes<T>::count;
  Vec<T> even[N] = {}, odd[N] = {}, here[N] = {};
  if constexpr (Away)
    for (int k = 0; k < N; ++k) here[k] = load<T>(own + k * W);
  const auto add = [&](int64_t e, Vec<T>* sums) {
    const T* row = rows[e] + from;
    const Vec<T> weight = splat<T>(w[e]);
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k)
      sums[k] += weight * (Away ? load<T>(row + k * W) - here[k] : load<T>(row + k * W));
  };
  int64_t e = 0;
  for (; e + 2 <= n; e += 2) {
    add(e, even);
    add(e + 1, odd);
  }
  if (e < n) add(e, even);
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) store<T>(to + k * W, load<T>(to + k * W) + (even[k] + odd[k]));
}

// to_d += Σ_e w_e row_e,d of n ≤ kGathered rows, features `from` and on; seen from `own` if Away.
template <class T, bool Away = false>
inline void add_rows(const T* const* rows, int64_t n, int64_t from, int64_t width,
                     const Tail<T>& tail, const T* w, T* to, const T* own = nullptr) {
  constexpr int W = Lanes<T>::count;
  int64_t d = 0;
  for (; d + 4 * W <= width; d += 4 * W)
    add_columns<T, 4, Away>(rows, n, from + d, w, Away ? own + d : own, to + d);
  for (; d + W <= width; d += W)
    add_columns<T, 1, Away>(rows, n, from + d, w, Away ? own + d : own, to + d);
  if (!tail.count) return;
  Vec<T> even{}, odd{}, here{};
  if constexpr (Away) here = tail.load(own + d);
  for (int64_t e = 0; e < n; ++e) {
    const Vec<T> row = tail.load(rows[e] + from + d);
    (e % 2 ? odd : even) += w[e] * (Away ? row - here : row);
  }
  tail.add(to + d, even + odd);
}

// to_d += v_d Σ_e x_e f'(own_d + row_e,d) and, if wanted, values_d += Σ_e x_e f(own_d + row_e,d).
template <class T, class Curve>
inline void add_slopes(const T* const* rows, int64_t n, int64_t from, int64_t width,
                       const Tail<T>& tail, const T* own, const T* vector, const T* x, Vec<T> c,
                       T* to, T* values) {
  constexpr int W = Lanes<T>::count;
  int64_t d = 0;
  for (; d + W <= width; d += W) {
    const Vec<T> here = load<T>(own + d);
    Vec<T> slopes{}, heights{};
    for (int64_t e = 0; e < n; ++e) {
      const Pair<T> one = Curve::template both<T>(here + load<T>(rows[e] + from + d), c);
      slopes += x[e] * one.slope;
      heights += x[e] * one.value;
    }
    store<T>(to + d, load<T>(to + d) + load<T>(vector + d) * slopes);
    if (values) store<T>(values + d, load<T>(values + d) + heights);
  }
  if (!tail.count) return;
  const Vec<T> here = tail.load(own + d);
  Vec<T> slopes{}, heights{};
  for (int64_t e = 0; e < n; ++e) {
    const Pair<T> one = Curve::template both<T>(here + tail.load(rows[e] + from + d), c);
    slopes += x[e] * one.slope;
    heights += x[e] * one.value;
  }
  tail.add(to + d, tail.load(vector + d) * slopes);
  if (values) tail.add(values + d, heights);
}

}  // namespace ogive::OGIVE_ISA::edge
