// Additive scores Σ_d v_d f(q_d + k_d): tiles of scores, and what a tile's gradient gives back.
//
// Keys come feature by feature, a span of them at a time, so that loops over keys read whole
// vectors; queries are read one number at a time.
#pragma once

#include <algorithm>

#include "curves.h"
#include "problem.h"

namespace ogive::OGIVE_ISA {

enum Act : int64_t { kNoAct, kTanh, kRelu, kLeakyRelu, kSilu, kSigmoid, kSoftplus, kGelu };

struct LeakyRelu {  // max(s, c s), 0 < c < 1
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return s > T(0) ? s : s * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), s > T(0) ? splat<T>(1) : c};
  }
};

// Runs `with` for the activation of the problem; its constant is what the curve expects as c.
template <class With>
void with_act(const Problem& p, With with) {
  switch (p.act) {
    case kTanh: return with(Tanh{}, 1.0);
    case kRelu: return with(Relu{}, 1.0);
    case kLeakyRelu: return with(LeakyRelu{}, p.act_constant);
    case kSilu: return with(Silu{}, 1.0);
    case kSigmoid: return with(Sigmoid{}, 0.0);
    case kSoftplus: return with(Softplus{}, 1.0);
    case kGelu: return with(Gelu{}, 1.0);
    default: return;
  }
}

// A block of queries against a span of keys, and the columns of the span that are needed.
template <class T>
struct AdditiveTile {
  int64_t rows, width, from, to;  // from and to are multiples of a vector
  const T* vectors;               // [d]
  const T* queries;               // [row][d]
  const T* features;              // [d][kSpan]
};

template <class T>
struct AdditiveGrads {
  T *queries, *vectors, *features;  // [row][d], [d], [d][kSpan]; all are added to
};

template <class T, class Curve>
void curve_scores(const AdditiveTile<T>& t, T c, T* scores, int64_t ld) {
  constexpr int W = Lanes<T>::count;
  for (int64_t r = 0; r < t.rows; ++r)
    for (int64_t j = t.from; j < t.to; j += W) {
      Vec<T> sums{};
      for (int64_t d = 0; d < t.width; ++d)
        sums += t.vectors[d] *
                Curve::template value<T>(
                    t.queries[r * t.width + d] + load<T>(t.features + d * ld + j), splat<T>(c));
      store<T>(scores + r * ld + j, sums);
    }
}

template <class T, class Curve>
void curve_gradients(const AdditiveTile<T>& t, T c, const T* grads, int64_t ld,
                     const AdditiveGrads<T>& to) {
  for (int64_t d = 0; d < t.width; ++d) {
    const T* feature = t.features + d * ld;
    Vec<T> values{};
    for (int64_t r = 0; r < t.rows; ++r) {
      Vec<T> slopes{};
      for (int64_t j = t.from; j < t.to; j += Lanes<T>::count) {
        const Pair<T> one =
            Curve::template both<T>(t.queries[r * t.width + d] + load<T>(feature + j), splat<T>(c));
        const Vec<T> g = load<T>(grads + r * ld + j), back = g * one.slope;
        slopes += back;
        values += g * one.value;
        T* key = to.features + d * ld + j;
        store<T>(key, load<T>(key) + t.vectors[d] * back);
      }
      to.queries[r * t.width + d] += t.vectors[d] * sum<T>(slopes);
    }
    to.vectors[d] += sum<T>(values);
  }
}

// scores[row][ld] of the tile's columns; ld is also the stride from feature to feature.
template <class T>
void additive_scores(const Problem& p, const AdditiveTile<T>& t, T* scores, int64_t ld) {
  with_act(p, [&](auto curve, double c) { curve_scores<T, decltype(curve)>(t, T(c), scores, ld); });
}

// From ∂/∂scores of the tile to the sums of its queries, keys and vectors.
template <class T>
void additive_gradients(const Problem& p, const AdditiveTile<T>& t, const T* grads, int64_t ld,
                        const AdditiveGrads<T>& to) {
  with_act(p, [&](auto curve, double c) {
    curve_gradients<T, decltype(curve)>(t, T(c), grads, ld, to);
  });
}

}  // namespace ogive::OGIVE_ISA
