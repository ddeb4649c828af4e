// Additive scores Σ_d v_d f(q_d + k_d): tiles of scores, and gradients of their left operand.
//
// The right operand comes packed as for dot products, so that the loop over features reads whole
// vectors of columns. tanh is computed as 1 − 2 / (1 + e^{2q} e^{2k}), with one exponential for
// each row and feature and one for each column and feature instead of one for each pair; where
// the exponents could overflow, by tanh itself.
#pragma once

#include <algorithm>
#include <vector>

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

template <class T>
constexpr T kSafeExponent = sizeof(T) == 4 ? T(20) : T(170);

template <class T>
bool within(const T* numbers, int64_t count, T limit) {
  bool all = true;
  for (int64_t k = 0; k < count; ++k) all &= std::abs(numbers[k]) <= limit;
  return all;
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

// The same for tanh from exponentials; two features share one division.
template <class T>
void tanh_row(int64_t depth, const T* grown, const T* vectors, T total, const T* panel, T* to) {
  constexpr int W = Lanes<T>::count;
  Vec<T> sums[2] = {};
  int64_t d = 0;
  for (; d + 1 < depth; d += 2)
    for (int half = 0; half < 2; ++half) {
      // A denominator beyond 2^30 changes v / denominator by less than a rounding of the sum.
      const T most = sizeof(T) == 4 ? T(1 << 30) : T(1e60);
      const Vec<T> one = smaller<T>(T(1) + grown[d] * load<T>(panel + d * 2 * W + half * W),
                                    splat<T>(most));
      const Vec<T> two = smaller<T>(T(1) + grown[d + 1] * load<T>(panel + (d + 1) * 2 * W + half * W),
                                    splat<T>(most));
      sums[half] += (vectors[d] * two + vectors[d + 1] * one) / (one * two);
    }
  for (; d < depth; ++d)
    for (int half = 0; half < 2; ++half)
      sums[half] += vectors[d] / (T(1) + grown[d] * load<T>(panel + d * 2 * W + half * W));
  store<T>(to, total - T(2) * sums[0]);
  store<T>(to + W, total - T(2) * sums[1]);
}

template <class T>
void grow(const T* from, int64_t count, T* to) {  // e^{2x}
  int64_t k = 0;
  for (; k + Lanes<T>::count <= count; k += Lanes<T>::count)
    store<T>(to + k, exp_below<T>(T(2) * load<T>(from + k)));
  for (; k < count; ++k) to[k] = std::exp(2 * from[k]);
}

template <class T>
void additive_tile(const Problem& p, const T* vectors, int64_t rows, const T* left, const T* panels,
                   int64_t columns, T* tile, int64_t ld) {
  const int64_t depth = p.width;
  const bool quick = p.act == kTanh && within<T>(left, rows * depth, kSafeExponent<T>) &&
                     within<T>(panels, columns * depth, kSafeExponent<T>);
  if (quick) {
    thread_local std::vector<T> grown, panel;
    grown.resize(rows * depth);
    panel.resize(kPanel<T> * depth);
    grow<T>(left, rows * depth, grown.data());
    T total = 0;
    for (int64_t d = 0; d < depth; ++d) total += vectors[d];
    for (int64_t j = 0; j < columns; j += kPanel<T>) {
      grow<T>(panels + j * depth, kPanel<T> * depth, panel.data());
      for (int64_t r = 0; r < rows; ++r)
        tanh_row<T>(depth, grown.data() + r * depth, vectors, total, panel.data(), tile + r * ld + j);
    }
    return;
  }
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
void tanh_left(int64_t depth, const T* vectors, int64_t rows, const T* grown, const T* panels,
               int64_t columns, const T* grads, int64_t ld, T* sums, int64_t ld_sums,
               T* vector_sums) {
  constexpr int W = Lanes<T>::count;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < depth; ++d) {
      Vec<T> slopes{}, values{};
      for (int64_t j = 0; j < columns; j += W) {
        const T* column = panels + j / kPanel<T> * kPanel<T> * depth + d * kPanel<T> + j % kPanel<T>;
        const Vec<T> share = T(1) / (T(1) + grown[r * depth + d] * load<T>(column));
        const Vec<T> g = load<T>(grads + r * ld + j);
        slopes += g * (share - share * share);
        values += g * (T(1) - T(2) * share);
      }
      sums[r * ld_sums + d] += T(4) * vectors[d] * sum<T>(slopes);
      if (vector_sums) vector_sums[d] += sum<T>(values);
    }
}

template <class T>
void additive_left(const Problem& p, const T* vectors, int64_t rows, const T* left, const T* panels,
                   int64_t columns, const T* grads, int64_t ld, T* sums, int64_t ld_sums,
                   T* vector_sums) {
  const int64_t depth = p.width;
  if (p.act == kTanh && within<T>(left, rows * depth, kSafeExponent<T>) &&
      within<T>(panels, columns * depth, kSafeExponent<T>)) {
    thread_local std::vector<T> grown, grown_panels;
    grown.resize(rows * depth);
    grown_panels.resize(round_up(columns, kPanel<T>) * depth);
    grow<T>(left, rows * depth, grown.data());
    grow<T>(panels, round_up(columns, kPanel<T>) * depth, grown_panels.data());
    tanh_left<T>(depth, vectors, rows, grown.data(), grown_panels.data(), columns, grads, ld, sums,
                 ld_sums, vector_sums);
    return;
  }
  with_act(p, [&](auto curve, double c) {
    curve_left<T, decltype(curve)>(depth, vectors, rows, left, panels, columns, grads, ld, T(c),
                                   sums, ld_sums, vector_sums);
  });
}

}  // namespace ogive::OGIVE_ISA
