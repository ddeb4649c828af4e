// relu and leaky relu of a sum: (1 − c) max(x, 0) + c x, of which the second part has rank one.
#pragma once

#include "additive.h"

namespace ogive::OGIVE_ISA {

// max(x, 0) of numbers that are not NaN.
template <class T>
inline Vec<T> above(Vec<T> x) {
  return larger<T>(x, Vec<T>{});
}

// Scores of `Count` vectors of columns from column j on; they start from what the tile holds.
template <class T, int Count>
inline void ramp_columns(const AdditiveTile<T>& t, int64_t r, int64_t j, T rest, T* scores) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[Count];
#pragma GCC unroll 4
  for (int k = 0; k < Count; ++k) sums[k] = load<T>(scores + j + k * W);
  for (int64_t d = 0; d < t.width; ++d) {
    const T q = t.queries[d * kBlock + r], w = rest * t.vectors[d];
#pragma GCC unroll 4
    for (int k = 0; k < Count; ++k)
      sums[k] += w * above<T>(q + load<T>(t.features + d * kSpan + j + k * W));
  }
#pragma GCC unroll 4
  for (int k = 0; k < Count; ++k) store<T>(scores + j + k * W, sums[k]);
}

// c Σ_d v_d (q_d + k_d), added to the tile.
template <class T>
void linear_scores(const AdditiveTile<T>& t, T leak, T* scores) {
  constexpr int W = Lanes<T>::count;
  alignas(64) T columns[kSpan];
  for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
    Vec<T> sums{};
    for (int64_t d = 0; d < t.width; ++d)
      sums += t.vectors[d] * load<T>(t.features + d * kSpan + j);
    store<T>(columns + j, leak * sums);
  }
  for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
    T row = 0;
    for (int64_t d = 0; d < t.width; ++d) row += t.vectors[d] * t.queries[d * kBlock + r];
    for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
      T* to = scores + r * kSpan + j;
      store<T>(to, load<T>(to) + (load<T>(columns + j) + leak * row));
    }
  }
}

template <class T>
void ramp_scores(const AdditiveTile<T>& t, T leak, T* scores) {
  constexpr int W = Lanes<T>::count;
  if (leak != 0) linear_scores<T>(t, leak, scores);
  for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
    int64_t j = t.columns.low;
    for (; j + 4 * W <= t.columns.high; j += 4 * W)
      ramp_columns<T, 4>(t, r, j, 1 - leak, scores + r * kSpan);
    for (; j < t.columns.high; j += W) ramp_columns<T, 1>(t, r, j, 1 - leak, scores + r * kSpan);
  }
}

// Of the part of rank one, from the sums of the tile's rows and columns.
template <class T>
void linear_gradients(const AdditiveTile<T>& t, T leak, const T* grads,
                      const AdditiveGrads<T>& to) {
  constexpr int W = Lanes<T>::count;
  alignas(64) T columns[kSpan] = {};
  T rows[kBlock];
  for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
    Vec<T> sums{};
    for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
      const Vec<T> g = load<T>(grads + r * kSpan + j);
      sums += g;
      store<T>(columns + j, load<T>(columns + j) + g);
    }
    rows[r] = leak * sum<T>(sums);
  }
  for (int64_t d = 0; d < t.width; ++d) {
    Vec<T> sums{};
    for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
      const Vec<T> g = leak * load<T>(columns + j);
      T* key = to.features + d * kSpan + j;
      sums += g * load<T>(t.features + d * kSpan + j);
      store<T>(key, load<T>(key) + t.vectors[d] * g);
    }
    T total = sum<T>(sums);
    for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
      total += rows[r] * t.queries[d * kBlock + r];
      to.queries[r * t.width + d] += t.vectors[d] * rows[r];
    }
    to.vectors[d] += total;
  }
}

// Gradients of feature d from `Rows` rows from r on; `values` gets Σ g max(x, 0).
template <class T, int Rows>
inline void ramp_rows(const AdditiveTile<T>& t, T leak, int64_t d, int64_t r, const T* grads,
                      const AdditiveGrads<T>& to, Vec<T>& values) {
  const T *feature = t.features + d * kSpan, *g = grads + r * kSpan;
  const T w = (1 - leak) * t.vectors[d];
  T q[Rows];
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) q[k] = t.queries[d * kBlock + r + k];
  T* key = to.features + d * kSpan;
  Vec<T> slopes[Rows] = {}, here[Rows] = {};
  for (int64_t j = t.columns.low; j < t.columns.high; j += Lanes<T>::count) {
    const Vec<T> k_j = load<T>(feature + j);
    Vec<T> sum{};
#pragma GCC unroll 4
    for (int k = 0; k < Rows; ++k) {
      const Vec<T> x = q[k] + k_j;
      const Vec<T> open = x > T(0) ? load<T>(g + k * kSpan + j) : Vec<T>{};
      slopes[k] += open;
      here[k] += open * x;
      sum += open;
    }
    store<T>(key + j, load<T>(key + j) + w * sum);
  }
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) {
    to.queries[(r + k) * t.width + d] += w * sum<T>(slopes[k]);
    values += here[k];
  }
}

template <class T>
void ramp_gradients(const AdditiveTile<T>& t, T leak, const T* grads, const AdditiveGrads<T>& to) {
  if (leak != 0) linear_gradients<T>(t, leak, grads, to);
  for (int64_t d = 0; d < t.width; ++d) {
    Vec<T> values{};
    int64_t r = t.rows.low;
    for (; r + 4 <= t.rows.high; r += 4) ramp_rows<T, 4>(t, leak, d, r, grads, to, values);
    for (; r < t.rows.high; ++r) ramp_rows<T, 1>(t, leak, d, r, grads, to, values);
    to.vectors[d] += (1 - leak) * sum<T>(values);
  }
}

}  // namespace ogive::OGIVE_ISA
