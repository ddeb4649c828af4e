// Additive scores Σ_d v_d f(q_d + k_d): a block of queries against a span of keys.
//
// Both sides come feature by feature, so that loops over keys read whole vectors. Three ways to the
// scores: by shared exponentials (additive_ratio.h), by a ramp (additive_ramp.h), and by any curve,
// here. Each takes a list of features and adds to what the tile holds.
#pragma once

#include <algorithm>

#include "block.h"
#include "curves.h"
#include "problem.h"

namespace ogive::OGIVE_ISA {

// Some rows of the block and columns of the span; columns start and end vectors.
template <class T>
struct AdditiveTile {
  Span rows, columns;
  int64_t width;
  const T* vectors;   // [d]
  const T* queries;   // [d][kBlock]
  const T* features;  // [d][kSpan]
};

// All are added to.
template <class T>
struct AdditiveGrads {
  T *queries, *vectors, *features;  // [row][d], [d], [d][kSpan]
};

struct Features {  // some features of the tile, by number
  const int64_t* at;
  int64_t count;
};

// Which pairs of a query's and a key's number go by the curve: all of them.
template <class T>
struct Everywhere {
  Vec<T> only(Vec<T> x, T, Vec<T>) const { return x; }
};

template <class T, class Curve, class Where>
void curve_scores(const AdditiveTile<T>& t, Features some, T c, Where where, T* scores) {
  for (int64_t r = t.rows.low; r < t.rows.high; ++r)
    for (int64_t j = t.columns.low; j < t.columns.high; j += Lanes<T>::count) {
      Vec<T> sums = load<T>(scores + r * kSpan + j);
      for (int64_t f = 0; f < some.count; ++f) {
        const int64_t d = some.at[f];
        const T q = t.queries[d * kBlock + r];
        const Vec<T> k = load<T>(t.features + d * kSpan + j);
        sums += t.vectors[d] * where.only(Curve::template value<T>(q + k, splat<T>(c)), q, k);
      }
      store<T>(scores + r * kSpan + j, sums);
    }
}

template <class T, class Curve, class Where>
void curve_gradients(const AdditiveTile<T>& t, Features some, T c, Where where, const T* grads,
                     const AdditiveGrads<T>& to) {
  for (int64_t f = 0; f < some.count; ++f) {
    const int64_t d = some.at[f];
    const T* feature = t.features + d * kSpan;
    T* key = to.features + d * kSpan;
    Vec<T> values{};
    for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
      Vec<T> slopes{};
      for (int64_t j = t.columns.low; j < t.columns.high; j += Lanes<T>::count) {
        const T q = t.queries[d * kBlock + r];
        const Vec<T> k = load<T>(feature + j);
        const Pair<T> one = Curve::template both<T>(q + k, splat<T>(c));
        const Vec<T> g = where.only(load<T>(grads + r * kSpan + j), q, k), back = g * one.slope;
        slopes += back;
        values += g * one.value;
        store<T>(key + j, load<T>(key + j) + t.vectors[d] * back);
      }
      to.queries[r * t.width + d] += t.vectors[d] * sum<T>(slopes);
    }
    to.vectors[d] += sum<T>(values);
  }
}

}  // namespace ogive::OGIVE_ISA
