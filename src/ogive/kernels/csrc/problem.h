// One call of the dense operation: sizes, pointers, strides (in elements), who sees whom.
#pragma once

#include <cstdint>

namespace ogive {

// What the numbers of a tensor are stored as: the type that is computed with, or a half.
enum Kind : int64_t { kOwn, kBfloat16, kFloat16 };

struct View {  // a tensor of four axes
  void* data = nullptr;
  int64_t kind = kOwn;
  int64_t stride[4] = {0, 0, 0, 0};

  template <class T>
  T* at(int64_t a, int64_t b, int64_t c = 0, int64_t d = 0) const {
    return static_cast<T*>(data) + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
  }
  explicit operator bool() const { return data != nullptr; }
};

struct Problem {
  int64_t batch, heads, shared, queries, keys, width, value_width;  // shared: key/value heads
  int64_t left, right;        // neighbours visible on either side, −1 for no limit
  double scale;               // factor on q · k
  double cap;                 // of the softcap after it, 0 for none
  int64_t threads;
  int64_t act;                // of an additive score, 0 for a dot product
  double act_constant;        // a leaky relu's slope
  double dropout;             // probability; 0 for none
  int64_t seed;
  int64_t apart;              // of a score by distance (apart.h), 0 for others
  View query, key, value;     // (b, h, i, d), (b, g, j, d), (b, g, j, v)
  View out;                   // (b, h, i, v)
  View mask;                  // bytes (b, h, i, j), nonzero = visible; none: all
  View bias;                  // (b, h, i, j), added to the scaled score; none: no bias
  View offset;                // int64 (b): where the first query stands among the keys
  View constant;              // (b, h, i): c of the weight function, or the sink logit
  View lse;                   // (b, h, i): written by the softmax family forward, read backward
  View delta;                 // (b, h, i): Σ_v grad_out · out − ∂/∂lse, read by softmax backward
  View vectors;               // (h, d) of an additive score, scale included
  View grad_bias;             // strides 0 where the bias broadcasts (turn.h says of what type)
  int64_t bias_once;          // each of its numbers belongs to one visible pair: nothing is added up
  View grad_vectors;          // (h, d)
  View grad_out, grad_query, grad_key, grad_value;
  bool* wild = nullptr;       // set where a number was read that is not finite or may overflow
};

}  // namespace ogive
