// One call of linear attention: out_i = factor_i Σ_j (q_i · k_j) v_j, never as a matrix of pairs.
//
// The sum is taken as q_i S_i, where S_i = Σ_j k_j v_jᵀ over the keys that query i sees. Those are
// all keys, or the first i + offset + right + 1; a mask takes keys away from every query alike.
#pragma once

#include <string_view>

#include "problem.h"

namespace ogive {

struct LinearProblem {
  int64_t batch, heads, shared, queries, keys, width, value_width;  // shared: key/value heads
  int64_t bounded, right;  // whether keys end at i + offset + right
  int64_t normalise;       // factor_i = 1 / Σ_j q_i · k_j, or scale · constant_i
  int64_t threads;
  double scale;
  View query, key, value;  // (b, h, i, d), (b, g, j, d), (b, g, j, v)
  View mask;               // bytes (b, g, ·, j), nonzero = visible; none: all
  View offset;             // int64 (b): where the first query stands among the keys
  View constant;           // (b, h, i); none: 1
  View out;                // (b, h, i, v)
  View total;              // (b, h, i): Σ_j q_i · k_j, written forward where normalised
  View grad_out, grad_query, grad_key, grad_value;
  double* peaks;           // largest |q|, |k|, |v|, |grad_out| that was read; ∞ for NaN
};

using LinearRun = void (*)(const LinearProblem&);
struct LinearTable {
  LinearRun forward[2], backward[2];  // float, double
};

LinearTable baseline_linear();
LinearTable avx2_linear();
LinearTable avx512_linear();

}  // namespace ogive
