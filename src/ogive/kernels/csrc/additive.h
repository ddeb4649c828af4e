// Additive scores Σ_d v_d f(q_d + k_d): tiles of scores, and gradients of their left operand.
//
// The right operand comes packed as for dot products, so that the loop over features reads whole
// vectors of columns.
#pragma once

#include <algorithm>

#include "curves.h"
#include "problem.h"
#include "tile.h"

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

// Column pairs of a panel for one row by any curve.
template <class T, class Curve>
void curve_row(int64_t depth, const T* left, const T* vectors, const T* panel, T c, T* to) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[2] = {};
  for (int64_t d = 0; d < depth; ++d)
    for (int half = 0; half < 2; ++half)
      sums[half] += vectors[d] * Curve::template value<T>(
                                     left[d] + load<T>(panel + d * 2 * W + half * W), splat<T>(c));
  store<T>(to, sums[0]);
  store<T>(to + W, sums[1]);
}

template <class T>
void additive_tile(const Problem& p, const T* vectors, int64_t rows, const T* left, const T* panels,
                   int64_t columns, T* tile, int64_t ld) {
  const int64_t depth = p.width;
  with_act(p, [&](auto curve, double c) {
    for (int64_t j = 0; j < columns; j += kPanel<T>)
      for (int64_t r = 0; r < rows; ++r)
        curve_row<T, decltype(curve)>(depth, left + r * depth, vectors, panels + j * depth, T(c),
                                      tile + r * ld + j);
  });
}

// sums[r][d] += v_d Σ_j g_rj f'(left_rd + right_jd) and, if wanted, vector_sums[d] += Σ g f.
template <class T, class Curve>
void curve_left(int64_t depth, const T* vectors, int64_t rows, const T* left, const T* panels,
                int64_t columns, const T* grads, int64_t ld, T c, T* sums, int64_t ld_sums,
                T* vector_sums) {
  constexpr int W = Lanes<T>::count;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < depth; ++d) {
      Vec<T> slopes{}, values{};
      for (int64_t j = 0; j < columns; j += W) {
        const T* column = panels + j / kPanel<T> * kPanel<T> * depth + d * kPanel<T> + j % kPanel<T>;
        const Pair<T> one =
            Curve::template both<T>(left[r * depth + d] + load<T>(column), splat<T>(c));
        const Vec<T> g = load<T>(grads + r * ld + j);
        slopes += g * one.slope;
        values += g * one.value;
      }
      sums[r * ld_sums + d] += vectors[d] * sum<T>(slopes);
      if (vector_sums) vector_sums[d] += sum<T>(values);
    }
}

template <class T>
void additive_left(const Problem& p, const T* vectors, int64_t rows, const T* left, const T* panels,
                   int64_t columns, const T* grads, int64_t ld, T* sums, int64_t ld_sums,
                   T* vector_sums) {
  const int64_t depth = p.width;
  with_act(p, [&](auto curve, double c) {
    curve_left<T, decltype(curve)>(depth, vectors, rows, left, panels, columns, grads, ld, T(c),
                                   sums, ld_sums, vector_sums);
  });
}

}  // namespace ogive::OGIVE_ISA
