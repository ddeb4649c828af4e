// Rows of a tile backward: from ∂/∂weights to ∂/∂scores, softcap, bias, mask and dropout included.
#pragma once

#include <algorithm>

#include "dropout.h"
#include "problem.h"
#include "seen.h"

namespace ogive::OGIVE_ISA {

// One row through its slope; constants come one for the row, or one for each column. `stay`
// holds the factor that dropout gave each weight, or is null; `slopes` gets those of the softcap.
template <class T, class Slope, bool PerColumn>
void turn_row(const Row<T>& row, T* grads, const T* first, const T* second, T cap, T* slopes,
              const T* stay) {
  if (cap > 0) {
    for (int64_t k = 0; k < row.n; k += Lanes<T>::count)
      store<T>(slopes + k, tanh_slope<T>(load<T>(row.scores + k) * (1 / cap)));
    row.squash(cap);
  }
  row.add_bias();
  for (int64_t k = 0; k < row.n; k += Lanes<T>::count) {
    Vec<T> s = load<T>(row.scores + k), g = load<T>(grads + k);
    if (stay) g *= load<T>(stay + k);
    const Vec<T> one = PerColumn ? load<T>(first + k) : splat<T>(*first);
    const Vec<T> two = PerColumn ? load<T>(second + k) : splat<T>(*second);
    Slope::turn(s, g, one, two);
    if (stay) s *= load<T>(stay + k);
    store<T>(row.scores + k, s);
    store<T>(grads + k, g);
  }
  if (!row.whole()) {
    row.hide(row.scores, 0);
    row.hide(grads, 0);
  }
}

// Back through the softcap, from ∂/∂(capped score) to ∂/∂score.
template <class T>
void unsquash(int64_t n, const T* slopes, T* grads) {
  for (int64_t k = 0; k < n; k += Lanes<T>::count)
    store<T>(grads + k, load<T>(grads + k) * load<T>(slopes + k));
}

// Whether queries or keys meet in one number of the bias's gradient. There may be millions of them, so
// such numbers are doubles; what a tile brings is summed first.
inline bool meet_in_bias(const View& grad_bias) {
  return grad_bias.stride[2] == 0 || grad_bias.stride[3] == 0;
}

// Numbers of it, `apart` from one another, take one row of ∂/∂scores.
template <class T, class Number>
void take_bias_gradient(const Problem& p, Number* to, int64_t apart, Span seen, const T* grads) {
  if (apart) {
    for (int64_t k = seen.low; k < seen.high; ++k)
      to[k * apart] = p.bias_once ? grads[k] : to[k * apart] + grads[k];
    return;
  }
  constexpr int W = Lanes<T>::count;
  Vec<T> sums{};
  T rest = 0;
  int64_t k = seen.low;
  for (; k + W <= seen.high; k += W) sums += load<T>(grads + k);
  for (; k < seen.high; ++k) rest += grads[k];
  const T all = sum<T>(sums) + rest;
  *to = p.bias_once ? all : *to + all;
}

// The same for the pair (i, j) and those after it on the axis (2 queries, 3 keys).
template <class T>
void take_bias_gradient(const Problem& p, const Place& at, int64_t i, int64_t j, int axis, Span seen,
                        const T* grads) {
  const View& to = p.grad_bias;
  if (meet_in_bias(to))
    take_bias_gradient<T>(p, to.at<double>(at.b, at.h, i, j), to.stride[axis], seen, grads);
  else
    take_bias_gradient<T>(p, to.at<T>(at.b, at.h, i, j), to.stride[axis], seen, grads);
}

// Scores and ∂/∂weights of a tile whose rows are queries become weights and ∂/∂scores; where nothing is
// visible, zeros.
template <class T, class Slope, class Scratch>
void turn_queries(const Problem& p, const Place& at, Scratch& mine, T* scores, T* grads) {
  for (int64_t r = 0; r < at.rows; ++r) {
    const Span& group = mine.sight.groups[r / kRows];
    const int64_t n = group.high - group.low, i = at.first + r;
    T* grad = grads + r * kSpan;
    if (mine.sight.rows[r].empty()) {
      std::fill(scores + r * kSpan + group.low, scores + r * kSpan + group.high, T(0));
      std::fill(grad + group.low, grad + group.high, T(0));
      continue;
    }
    const T zero = 0, *stay = nullptr;
    const T* first = (Slope::shares ? p.lse : p.constant).template at<T>(at.b, at.h, i);
    const T* second = Slope::shares ? p.delta.at<T>(at.b, at.h, i) : &zero;
    if (p.dropout > 0)
      stay = stay_of_query<T>(p, at.b, at.h, i, at.start + group.low, n, mine.stay);
    turn_row<T, Slope, false>(mine.sight.row(r, scores), grad + group.low, first, second, T(p.cap),
                              mine.slopes, stay);
    if (p.grad_bias) take_bias_gradient<T>(p, at, i, at.start, 3, mine.sight.rows[r], grad);
    if (p.cap > 0) unsquash<T>(n, mine.slopes, grad + group.low);
  }
}

}  // namespace ogive::OGIVE_ISA
