// Who sees whom: the ends of a row by position, and one row of a tile with what hides in it.
#pragma once

#include <algorithm>

#include "problem.h"
#include "simd.h"

namespace ogive::OGIVE_ISA {

struct Span {
  int64_t low, high;
};

// Keys that query i sees by position alone.
inline Span keys_of(const Problem& p, int64_t b, int64_t i) {
  const int64_t at = i + (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);
  int64_t low = p.left < 0 ? 0 : std::max<int64_t>(0, at - p.left);
  int64_t high = p.right < 0 ? p.keys : std::min(p.keys, at + p.right + 1);
  low = std::min(low, p.keys);
  return {low, std::max(low, high)};
}

// Queries that see key j by position alone.
inline Span queries_of(const Problem& p, int64_t b, int64_t j) {
  const int64_t at = j - (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);
  int64_t low = p.right < 0 ? 0 : std::max<int64_t>(0, at - p.right);
  int64_t high = p.left < 0 ? p.queries : std::min(p.queries, at + p.left + 1);
  low = std::min(low, p.queries);
  return {low, std::max(low, high)};
}

// One row of a tile: numbers for n columns, of which [low, high) may be seen.
template <class T>
struct Row {
  T* scores;
  int64_t n, low, high;     // low and high relative to the tile
  const uint8_t* mask;      // or null; element k at mask[k * mask_stride]
  int64_t mask_stride;
  const T* bias;
  int64_t bias_stride;

  bool whole() const { return low <= 0 && high >= n && !mask; }
  void squash(T cap) const {  // cap · tanh(s / cap)
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(scores + k, cap * hyperbolic_tangent<T>(load<T>(scores + k) * (1 / cap)));
  }
  void add_bias() const {
    if (!bias) return;
    for (int64_t k = std::max<int64_t>(low, 0); k < std::min(high, n); ++k)
      scores[k] += bias[k * bias_stride];
  }
  void hide(T* numbers, T with) const {
    const int64_t from = std::clamp<int64_t>(low, 0, n), to = std::clamp<int64_t>(high, from, n);
    for (int64_t k = 0; k < from; ++k) numbers[k] = with;
    for (int64_t k = to; k < n; ++k) numbers[k] = with;
    if (mask)
      for (int64_t k = from; k < to; ++k)
        if (!mask[k * mask_stride]) numbers[k] = with;
  }
};

// Scores of query i against keys [j0, j0 + n), or (key_row) of key j against queries [i0, i0 + n).
template <class T>
Row<T> row_of(const Problem& p, Span seen, int64_t b, int64_t h, int64_t i, int64_t j, int along,
              int64_t n, T* scores) {
  const int64_t start = along == 3 ? j : i;
  return {scores,
          n,
          seen.low - start,
          seen.high - start,
          p.mask ? p.mask.at<const uint8_t>(b, h, i, j) : nullptr,
          p.mask.stride[along],
          p.bias ? p.bias.at<const T>(b, h, i, j) : nullptr,
          p.bias.stride[along]};
}
template <class T>
Row<T> query_row(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n, T* s) {
  return row_of<T>(p, keys_of(p, b, i), b, h, i, j0, 3, n, s);
}
template <class T>
Row<T> key_row(const Problem& p, int64_t b, int64_t h, int64_t j, int64_t i0, int64_t n, T* s) {
  return row_of<T>(p, queries_of(p, b, j), b, h, i0, j, 2, n, s);
}

}  // namespace ogive::OGIVE_ISA
