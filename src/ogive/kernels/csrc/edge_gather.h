// Arithmetic with gathered rows: a score for each edge and head, sums of rows. Rows are read where
// they lie, at most kGathered at a time, and every head is computed while they are near.
#pragma once

#include <algorithm>
#include <bit>

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
  void store(T* to, Vec<T> v) const {
#if OGIVE_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)v);
    else
      _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), (__m512d)v);
#elif OGIVE_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4)
      _mm256_maskstore_ps(to, mask, (__m256)v);
    else
      _mm256_maskstore_pd(to, mask, (__m256d)v);
#else
    for (int64_t k = 0; k < count; ++k) to[k] = v[k];
#endif
  }
};

// A whole vector of features, as Tail is a part of one.
template <class T>
struct Whole {
  Vec<T> load(const T* from) const { return OGIVE_ISA::load<T>(from); }
  void store(T* to, Vec<T> v) const { OGIVE_ISA::store<T>(to, v); }
};

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
    auto all = fits[0];
    for (int k = 1; k < W; ++k) all &= fits[k];
    if (!all) return false;
  }
  for (; i < n; ++i)
    if (!(std::abs(values[i]) <= limit)) return false;
  return true;
}

// How the scores of a node's edges stand: edge by edge, the heads of each side by side in `stride`
// places. A vector so holds all heads of one or more edges, or some of the heads of one edge; every
// `step` places the same heads come again.
template <class T>
struct HeadLanes {
  static constexpr int64_t W = Lanes<T>::count;
  int64_t heads, stride, step;

  explicit HeadLanes(int64_t n)
      : heads(n),
        stride(n < W ? int64_t(std::bit_ceil(uint64_t(n))) : (n + W - 1) / W * W),
        step(std::max(stride, W)) {}
  int64_t size(int64_t edges) const { return (edges * stride + step - 1) / step * step; }
  int64_t in_vector() const { return std::min(stride, W); }  // different heads
};

// Joins the lanes of one head, and leaves the result in all of them.
template <class T, class With, int Step = Lanes<T>::count / 2>
inline Vec<T> over_edges(Vec<T> v, int64_t stride, With with) {
  if (Step >= stride) v = with(v, exchanged<T, Step>(v, Places<T>{}));
  if constexpr (Step > 1) return over_edges<T, With, Step / 2>(v, stride, with);
  return v;
}
template <class T>
inline Vec<T> sum_over_edges(Vec<T> v, int64_t stride) {
  return over_edges<T>(v, stride, [](Vec<T> a, Vec<T> b) { return a + b; });
}

// Lane k of the result is the sum of the lanes of rows[k].
template <class T, int Step = 1>
inline Vec<T> sums_of(Vec<T>* rows) {
  constexpr int W = Lanes<T>::count;
#pragma GCC unroll 16
  for (int i = 0; i < W; i += 2 * Step) {
    swap_blocks<T, Step>(rows[i], rows[i + Step], Places<T>{});
    rows[i] += rows[i + Step];
  }
  if constexpr (2 * Step < W) return sums_of<T, 2 * Step>(rows);
  return rows[0];
}

// Σ_d of a term, still in lanes: `term` gets what loads a vector of features from a row's start.
template <class T, class Term>
inline Vec<T> lane_sums(int64_t width, const Tail<T>& tail, Term term) {
  constexpr int W = Lanes<T>::count;
  Vec<T> even{}, odd{};
  int64_t d = 0;
  const auto whole = [&](const T* row) { return load<T>(row + d); };
  for (; d + 2 * W <= width; d += W) {
    even += term(whole);
    d += W;
    odd += term(whole);
  }
  if (d + W <= width) {
    even += term(whole);
    d += W;
  }
  if (tail.count) odd += term([&](const T* row) { return tail.load(row + d); });
  return even + odd;
}

// to[edge, head] = Σ_d term(edge, head) of features, for `count` edges; places of no head get 0.
template <class T, class Term>
inline void sum_heads(const HeadLanes<T>& lanes, int64_t width, const Tail<T>& tail, int64_t count,
                      T* to, Term term) {
  constexpr int64_t W = Lanes<T>::count;
  const int64_t heads = lanes.in_vector(), shift = std::countr_zero(uint64_t(heads));
  for (int64_t e = 0; e < count; e += W >> shift)
    for (int64_t h = 0; h < lanes.stride; h += W) {
      Vec<T> sums[W];
      if (width == W && heads == W && h + W <= lanes.heads) {
#pragma GCC unroll 16
        for (int l = 0; l < W; ++l)
          sums[l] = term(e, h + l)([](const T* row) { return load<T>(row); });
      } else {
        for (int l = 0; l < W; ++l) {
          const int64_t edge = e + (l >> shift), head = h + (l & (heads - 1));
          const bool there = edge < count && head < lanes.heads;
          sums[l] = there ? lane_sums<T>(width, tail, term(edge, head)) : Vec<T>{};
        }
      }
      store<T>(to + e * lanes.stride + h, sums_of<T>(sums));
    }
}

// The heads of one node, and those of nodes that were gathered.
template <class T>
struct Heads {
  T* data;
  int64_t head;

  T* at(int64_t h, int64_t d = 0) const { return data + h * head + d; }
};
template <class T>
struct Gathered {
  const T* const* rows;
  int64_t count, head;

  const T* at(int64_t e, int64_t h, int64_t d = 0) const { return rows[e] + h * head + d; }
};

template <int N>
using Number = std::integral_constant<int, N>;

// All features of all heads: calls block(N, Share, h, d, how) for N vectors, Share in each of the
// heads from h, from feature d on; `how` loads and stores them.
template <class T, class Block>
inline void in_blocks(int64_t heads, int64_t width, const Tail<T>& tail, Block block) {
  constexpr int64_t W = Lanes<T>::count;
  const Whole<T> whole;
  int64_t d = 0;
  for (; d + 4 * W <= width; d += 4 * W)
    for (int64_t h = 0; h < heads; ++h) block(Number<4>{}, Number<4>{}, h, d, whole);
  if (d + 2 * W <= width) {
    int64_t h = 0;
    for (; h + 2 <= heads; h += 2) block(Number<4>{}, Number<2>{}, h, d, whole);
    if (h < heads) block(Number<2>{}, Number<2>{}, h, d, whole);
    d += 2 * W;
  }
  if (d + W <= width) {
    int64_t h = 0;
    for (; h + 4 <= heads; h += 4) block(Number<4>{}, Number<1>{}, h, d, whole);
    for (; h < heads; ++h) block(Number<1>{}, Number<1>{}, h, d, whole);
    d += W;
  }
  if (tail.count)
    for (int64_t h = 0; h < heads; ++h) block(Number<1>{}, Number<1>{}, h, d, tail);
}

// Where sums of rows go, in the place of what is there or on top of it; or nowhere.
template <class T>
struct Sums {
  Heads<T> to;
  bool adds;

  template <class How>
  void put(const How& how, int64_t h, int64_t d, Vec<T> v) const {
    if (!to.data) return;
    T* at = to.at(h, d);
    how.store(at, adds ? how.load(at) + v : v);
  }
};

// Σ_e w_e row_e for every head; rows are seen from `own` if Away. Two sums in turn round less than
// one, and need not wait for each other.
template <class T, bool Away = false>
inline void add_rows(const HeadLanes<T>& lanes, const Gathered<T>& from, int64_t width,
                     const Tail<T>& tail, const T* w, Sums<T> to, Heads<const T> own = {}) {
  constexpr int W = Lanes<T>::count;
  in_blocks<T>(lanes.heads, width, tail, [&](auto n, auto share, int64_t h, int64_t d, auto& how) {
    constexpr int N = n, Share = share;
    Vec<T> even[N] = {}, odd[N] = {}, here[N] = {};
    if constexpr (Away)
      for (int k = 0; k < N; ++k) here[k] = how.load(own.at(h + k / Share, d + k % Share * W));
    const auto add = [&](int64_t e, Vec<T>* sums) {
      const T* weights = w + e * lanes.stride + h;
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) {
        const Vec<T> row = how.load(from.at(e, h + k / Share, d + k % Share * W));
        sums[k] += weights[k / Share] * (Away ? row - here[k] : row);
      }
    };
    int64_t e = 0;
    for (; e + 2 <= from.count; e += 2) {
      add(e, even);
      add(e + 1, odd);
    }
    if (e < from.count) add(e, even);
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k)
      to.put(how, h + k / Share, d + k % Share * W, even[k] + odd[k]);
  });
}

// v Σ_e x_e f'(own + row_e) for every head and, if wanted, values += Σ_e x_e f(own + row_e).
template <class T, class Curve>
inline void add_slopes(const HeadLanes<T>& lanes, const Gathered<T>& from, int64_t width,
                       const Tail<T>& tail, const T* x, Vec<T> c, Heads<const T> own,
                       Heads<const T> vectors, Sums<T> to, T* values) {
  constexpr int W = Lanes<T>::count;
  in_blocks<T>(lanes.heads, width, tail, [&](auto n, auto share, int64_t h, int64_t d, auto& how) {
    constexpr int N = n, Share = share;
    Vec<T> here[N], slopes[N] = {}, heights[N] = {};
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) here[k] = how.load(own.at(h + k / Share, d + k % Share * W));
    for (int64_t e = 0; e < from.count; ++e) {
      const T* grads = x + e * lanes.stride + h;
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) {
        const Vec<T> row = how.load(from.at(e, h + k / Share, d + k % Share * W));
        const Pair<T> one = Curve::template both<T>(here[k] + row, c);
        slopes[k] += grads[k / Share] * one.slope;
        heights[k] += grads[k / Share] * one.value;
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      const int64_t head = h + k / Share, feature = d + k % Share * W;
      to.put(how, head, feature, how.load(vectors.at(head, feature)) * slopes[k]);
      if (!values) continue;
      T* sums = values + head * width + feature;
      how.store(sums, how.load(sums) + heights[k]);
    }
  });
}

}  // namespace ogive::OGIVE_ISA::edge
