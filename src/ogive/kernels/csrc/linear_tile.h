// Tiles of linear attention: products of six rows with packed columns, held in registers.
//
// The left operand stays row-major and is read one number at a time; the right operand comes in
// panels two vectors wide. Six rows by two vectors fill twelve of sixteen registers; twelve rows, which
// AVX-512 has room for, were no faster. tile.h has the same shape for a tile with gaps, whose operands
// are packed with one stride; states, transposed keys and a triangle have strides of their own, so the
// two share no loop.
#pragma once

#include "simd.h"

namespace ogive::OGIVE_ISA {

constexpr int kRows = 6;
template <class T>
constexpr int kPanel = 2 * Lanes<T>::count;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// c[Rows][panel] = a[Rows][depth] · b[depth][panel], added to what c holds if Add. Entry (r, k) of a
// is at a[r · across + k · along].
template <class T, int Rows, bool Add>
inline void micro(int64_t depth, const T* a, int64_t across, int64_t along, const T* b, int64_t ldb,
                  T* c, int64_t ldc) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Rows][2];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    sums[r][0] = Add ? load<T>(c + r * ldc) : Vec<T>{};
    sums[r][1] = Add ? load<T>(c + r * ldc + W) : Vec<T>{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vec<T> left = load<T>(b + k * ldb), right = load<T>(b + k * ldb + W);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> x = splat<T>(a[r * across + k * along]);
      sums[r][0] += x * left;
      sums[r][1] += x * right;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    store<T>(c + r * ldc, sums[r][0]);
    store<T>(c + r * ldc + W, sums[r][1]);
  }
}

// c[rows][columns] = a[rows][depth] · panels; rows in sixes, columns in panels.
template <class T>
inline void against_panels(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* panels,
                           int64_t columns, T* c, int64_t ldc) {
  for (int64_t j = 0; j < columns; j += kPanel<T>)
    for (int64_t r = 0; r < rows; r += kRows)
      micro<T, kRows, false>(depth, a + r * lda, lda, 1, panels + j * depth, kPanel<T>,
                             c + r * ldc + j, ldc);
}

// c[rows][columns] += a[rows][depth] · b[depth][columns], b row-major; rows in sixes.
template <class T>
inline void add_product(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b,
                        int64_t ldb, int64_t columns, T* c, int64_t ldc) {
  for (int64_t j = 0; j < columns; j += kPanel<T>)
    for (int64_t r = 0; r < rows; r += kRows)
      micro<T, kRows, true>(depth, a + r * lda, lda, 1, b + j, ldb, c + r * ldc + j, ldc);
}

// c[rows][columns] += aᵀ · b with a[depth][rows] and b[depth][columns] row-major; any even rows.
template <class T>
inline void add_transposed_product(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b,
                                   int64_t ldb, int64_t columns, T* c, int64_t ldc) {
  for (int64_t j = 0; j < columns; j += kPanel<T>) {
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows)
      micro<T, kRows, true>(depth, a + r, 1, lda, b + j, ldb, c + r * ldc + j, ldc);
    for (; r < rows; r += 2)
      micro<T, 2, true>(depth, a + r, 1, lda, b + j, ldb, c + r * ldc + j, ldc);
  }
}

// Rows of a tensor, times a factor, into panels: column j of panel p is row p · panel + j.
template <class T>
inline void pack_panels(const T* from, int64_t rows, int64_t row_stride, int64_t depth,
                        int64_t stride, T factor, T* to) {
  for (int64_t j = 0; j < rows; j += kPanel<T>, to += depth * kPanel<T>) {
    const int64_t filled = rows - j < kPanel<T> ? rows - j : kPanel<T>;
    for (int64_t c = 0; c < filled; ++c) {
      const T* row = from + (j + c) * row_stride;
      if (stride == 1)
        for (int64_t k = 0; k < depth; ++k) to[k * kPanel<T> + c] = row[k] * factor;
      else
        for (int64_t k = 0; k < depth; ++k) to[k * kPanel<T> + c] = row[k * stride] * factor;
    }
    for (int64_t c = filled; c < kPanel<T>; ++c)
      for (int64_t k = 0; k < depth; ++k) to[k * kPanel<T> + c] = 0;
  }
}

// Rows of a tensor, times a factor, row-major with zeros up to `wide` columns and `tall` rows.
template <class T>
inline void pack_rows(const T* from, int64_t rows, int64_t row_stride, int64_t columns,
                      int64_t stride, T factor, T* to, int64_t tall, int64_t wide) {
  for (int64_t r = 0; r < tall; ++r, to += wide) {
    const int64_t filled = r < rows ? columns : 0;
    const T* row = from + r * row_stride;
    if (stride == 1)
      for (int64_t k = 0; k < filled; ++k) to[k] = row[k] * factor;
    else
      for (int64_t k = 0; k < filled; ++k) to[k] = row[k * stride] * factor;
    for (int64_t k = filled; k < wide; ++k) to[k] = 0;
  }
}

}  // namespace ogive::OGIVE_ISA
