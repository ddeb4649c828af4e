// Tiles: products of a few rows with packed columns, held in registers.
//
// The left operand stays row-major and is read one number at a time; the right operand comes in
// panels two vectors wide. As many rows are done at once as the registers hold: six of two vectors
// fill twelve of sixteen, twelve fill twenty-four of AVX-512's thirty-two.
#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace ogive::OGIVE_ISA {

constexpr int kRows = OGIVE_VECTOR_BYTES == 64 ? 12 : 6;
template <class T>
constexpr int kPanel = 2 * Lanes<T>::count;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Span {
  int64_t low, high;
  bool empty() const { return low >= high; }
};

// Products deeper than these, of rows of scores and of weights, are sums of sums, which round less
// than one long sum. Gradients of values are sums over rows that weigh very differently, the first few
// often most of the sum: they take the smallest.
constexpr int64_t kDeep = 64, kDeepest = 128;
template <class T>
constexpr int64_t kShallow = sizeof(T) == 8 ? 16 : 32;

// How the left operand lies: entry (row, k) at a[row · ld + k], or transposed at a[k · ld + row].
enum Lie { kRowMajor, kTransposed };

// c[Rows][columns] = a[Rows][depth] · b[depth][columns], added to what c holds if Add: at the end, since
// a sum of sums rounds less than one long sum. Columns are those of one panel, or a vector of it.
template <class T, Lie L, bool Add, int Vectors, int Rows>
void micro(int64_t depth, const T* a, int64_t lda, const T* b, T* c, int64_t ldc) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Rows][Vectors] = {};
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k, b += kPanel<T>) {
    Vec<T> right[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) right[v] = load<T>(b + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> x = splat<T>(L == kTransposed ? a[k * lda + r] : a[r * lda + k]);
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sums[r][v] += x * right[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      T* to = c + r * ldc + v * W;
      store<T>(to, Add ? load<T>(to) + sums[r][v] : sums[r][v]);
    }
}

// The same for the rows that are left at the end.
template <class T, Lie L, bool Add, int Vectors = 2, int Rows = kRows>
inline void micro_of(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b, T* c,
                     int64_t ldc) {
  if constexpr (Rows > 1)
    if (rows < Rows)
      return micro_of<T, L, Add, Vectors, Rows - 1>(rows, depth, a, lda, b, c, ldc);
  micro<T, L, Add, Vectors, Rows>(depth, a, lda, b, c, ldc);
}

// c = a · b for columns of one panel, in sums of at most kDeep products.
template <class T, int Vectors>
inline void against_columns(int64_t rows, int64_t depth, const T* a, const T* b, T* c, int64_t ldc) {
  micro_of<T, kRowMajor, false, Vectors>(rows, std::min(depth, kDeep), a, depth, b, c, ldc);
  for (int64_t k = kDeep; k < depth; k += kDeep)
    micro_of<T, kRowMajor, true, Vectors>(rows, std::min(depth - k, kDeep), a + k, depth,
                                          b + k * kPanel<T>, c, ldc);
}

// c = a · panels for each group of kRows rows, in the columns that the group has use for: those of
// `spans`, which start and end vectors. Panels lie [panel][depth][columns of the panel].
template <class T>
__attribute__((noinline)) void against_panels(int64_t rows, int64_t depth, const T* a,
                                              const T* panels, const Span* spans, T* c,
                                              int64_t ldc) {
  Span all{INT64_MAX, 0};
  for (int64_t r = 0; r < rows; r += kRows)
    if (!spans[r / kRows].empty())
      all = {std::min(all.low, spans[r / kRows].low), std::max(all.high, spans[r / kRows].high)};
  for (int64_t j = all.low / kPanel<T> * kPanel<T>; j < all.high; j += kPanel<T>)
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t low = std::max(spans[r / kRows].low, j);
      const int64_t high = std::min(spans[r / kRows].high, j + kPanel<T>);
      const T *left = a + r * depth, *right = panels + j * depth + (low - j);
      T* to = c + r * ldc + low;
      if (high - low == kPanel<T>)
        against_columns<T, 2>(rows - r, depth, left, right, to, ldc);
      else if (high > low)
        against_columns<T, 1>(rows - r, depth, left, right, to, ldc);
    }
}

// c += a · b for each group of kRows rows, over the depths that the group has use for. b comes in
// tall panels, `tall` rows each, for `columns` columns; rows of c are whole panels long.
template <class T, Lie L, int64_t Deep = kDeepest>
__attribute__((noinline)) void add_product(int64_t rows, const Span* spans, const T* a, int64_t lda,
                                           const T* b, int64_t tall, int64_t columns, T* c) {
  const int64_t across = round_up(columns, kPanel<T>);
  const auto add_panel = [&](auto vectors, int64_t j) {
    for (int64_t r = 0; r < rows; r += kRows) {
      const Span& span = spans[r / kRows];
      for (int64_t k = span.low; k < span.high; k += Deep)
        micro_of<T, L, true, vectors>(rows - r, std::min(span.high - k, Deep),
                                      L == kTransposed ? a + k * lda + r : a + r * lda + k, lda,
                                      b + j * tall + k * kPanel<T>, c + r * across + j, across);
    }
  };
  int64_t j = 0;
  for (; j + Lanes<T>::count < columns; j += kPanel<T>) add_panel(std::integral_constant<int, 2>{}, j);
  if (j < columns) add_panel(std::integral_constant<int, 1>{}, j);
}

}  // namespace ogive::OGIVE_ISA
