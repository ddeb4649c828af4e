// Scores by distance, −scale d²/2 or −scale d: differences first, so that close points keep their
// digits. |q|² + |k|² − 2 q·k has none left where q and k are near each other, and no more has
// Σ g k − q Σ g, so gradients too are sums of what is times the difference of two points.
#pragma once

#include <algorithm>
#include <cmath>

#include "problem.h"
#include "tile.h"

namespace ogive::OGIVE_ISA {

enum Apart : int64_t { kNotApart, kLength, kSquare };  // compiled.py numbers them alike

// How many rows the loops over differences hold in registers.
constexpr int kApartRows = 6, kAwayRows = OGIVE_VECTOR_BYTES == 64 ? 6 : 3;

// The scale goes into the packed queries of a dot product, and into the score of a distance.
template <class T>
T query_factor(const Problem& p) {
  return T(p.apart ? 1 : p.scale);
}

// c[Rows][panel] = Σ_k (a[row][k] − b[k][column])².
template <class T, int Rows>
void micro_apart(int64_t depth, const T* a, const T* b, T* c, int64_t ldc) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Rows][2] = {};
  for (int64_t k = 0; k < depth; ++k, b += 2 * W) {
    const Vec<T> left = load<T>(b), right = load<T>(b + W);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> x = splat<T>(a[r * depth + k]), one = x - left, two = x - right;
      sums[r][0] += one * one;
      sums[r][1] += two * two;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    store<T>(c + r * ldc, sums[r][0]);
    store<T>(c + r * ldc + W, sums[r][1]);
  }
}

template <class T, int Rows = kApartRows>
inline void micro_apart_of(int64_t rows, int64_t depth, const T* a, const T* b, T* c, int64_t ldc) {
  if constexpr (Rows > 1)
    if (rows < Rows) return micro_apart_of<T, Rows - 1>(rows, depth, a, b, c, ldc);
  micro_apart<T, Rows>(depth, a, b, c, ldc);
}

// Squares of distances become scores.
template <class T>
void score_squares(const Problem& p, T* row) {
  for (int64_t k = 0; k < kPanel<T>; k += Lanes<T>::count) {
    const Vec<T> square = load<T>(row + k);
    if (p.apart == kSquare) {
      store<T>(row + k, square * T(-0.5 * p.scale));
      continue;
    }
    Vec<T> root;
    for (int l = 0; l < Lanes<T>::count; ++l) root[l] = std::sqrt(square[l]);
    store<T>(row + k, root * T(-p.scale));
  }
}

template <class T>
__attribute__((noinline)) void apart_panels(const Problem& p, int64_t rows, const T* a,
                                            const T* panels, const Span* spans, T* c, int64_t ldc) {
  for (int64_t r = 0; r < rows; r += kRows) {
    const Span& span = spans[r / kRows];
    for (int64_t j = span.low / kPanel<T> * kPanel<T>; j < span.high; j += kPanel<T>) {
      const int64_t end = std::min<int64_t>(rows, r + kRows);
      for (int64_t row = r; row < end; row += kApartRows)
        micro_apart_of<T>(end - row, p.width, a + row * p.width, panels + j * p.width,
                          c + row * ldc + j, ldc);
      for (int64_t row = r; row < end; ++row) score_squares<T>(p, c + row * ldc + j);
    }
  }
}

// Scores of rows against panels, in the columns that each group of rows has use for (distances: in the
// panels that hold those).
template <class T>
void score_panels(const Problem& p, int64_t rows, const T* a, const T* panels, const Span* spans,
                  T* c, int64_t ldc) {
  if (p.apart)
    apart_panels<T>(p, rows, a, panels, spans, c, ldc);
  else
    against_panels<T>(rows, p.width, a, panels, spans, c, ldc);
}

// What a length does to the gradient of its score: 1/d, and nothing where there is no distance.
template <class T>
void length_slopes(const Problem& p, int64_t n, const T* scores, T* slopes) {
  for (int64_t k = 0; k < n; k += Lanes<T>::count) {
    const Vec<T> s = load<T>(scores + k);
    store<T>(slopes + k, s == T(0) ? Vec<T>{} : T(-p.scale) / s);
  }
}

// c[Rows][panel] += Σ_k a[row][k] (b[k][column] − own[row][column]).
template <class T, Lie L, int Rows>
void micro_away(int64_t depth, const T* a, int64_t lda, const T* b, const T* own, T* c,
                int64_t ldc) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Rows][2] = {}, here[Rows][2];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    here[r][0] = load<T>(own + r * 2 * W);
    here[r][1] = load<T>(own + r * 2 * W + W);
  }
  for (int64_t k = 0; k < depth; ++k, b += 2 * W) {
    const Vec<T> left = load<T>(b), right = load<T>(b + W);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> x = splat<T>(L == kTransposed ? a[k * lda + r] : a[r * lda + k]);
      sums[r][0] += x * (left - here[r][0]);
      sums[r][1] += x * (right - here[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    store<T>(c + r * ldc, load<T>(c + r * ldc) + sums[r][0]);
    store<T>(c + r * ldc + W, load<T>(c + r * ldc + W) + sums[r][1]);
  }
}

template <class T, Lie L, int Rows = kAwayRows>
inline void micro_away_of(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b,
                          const T* own, T* c, int64_t ldc) {
  if constexpr (Rows > 1)
    if (rows < Rows) return micro_away_of<T, L, Rows - 1>(rows, depth, a, lda, b, own, c, ldc);
  micro_away<T, L, Rows>(depth, a, lda, b, own, c, ldc);
}

// Points in tall panels, `tall` rows each.
template <class T>
struct Points {
  const T* panels;
  int64_t tall;
};

// add_product with each point of `others` seen from the row's own.
template <class T, Lie L>
__attribute__((noinline)) void add_away(int64_t rows, const Span* spans, const T* a, int64_t lda,
                                        Points<T> others, Points<T> own, int64_t columns, T* c) {
  for (int64_t j = 0; j < columns; j += kPanel<T>)
    for (int64_t r = 0; r < rows; r += kAwayRows) {
      const Span& span = spans[r / kRows];
      if (span.empty()) continue;
      const int64_t left = std::min<int64_t>(rows, round_up(r + 1, kRows)) - r;
      micro_away_of<T, L>(left, span.high - span.low,
                          L == kTransposed ? a + span.low * lda + r : a + r * lda + span.low, lda,
                          others.panels + j * others.tall + span.low * kPanel<T>,
                          own.panels + j * own.tall + r * kPanel<T>, c + r * columns + j, columns);
    }
}

}  // namespace ogive::OGIVE_ISA
