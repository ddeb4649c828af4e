// Weight functions that share one unit of weight among a row: softmax and its kin.
//
// Each is w_j = signed(s_j) / total with total = Σ_k mass(s_k) (+ a sink). Forward runs over the
// row in spans and rescales what it has by e^(old shift − new shift); it leaves lse = log total.
// Backward needs lse and delta = Σ_v grad_out · out.
#pragma once

#include "simd.h"

namespace ogive::OGIVE_ISA {

template <class T>
constexpr T kNothing = -std::numeric_limits<T>::infinity();

template <class T>
struct Share {
  Vec<T> weight, mass;
};

// e^s / (Σ e^s + e^z), z the logit of a sink; hidden scores come as −∞.
struct SoftmaxShape {
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s;
  }
  template <class T>
  static Share<T> share(Vec<T> s, T shift) {
    const Vec<T> e = exp_below<T>(s - shift);
    return {e, e};
  }
  template <class T>
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> lse, Vec<T> delta) {
    const Vec<T> w = exp_below<T>(s - lse);
    s = w;
    g = w * (g - delta);
  }
};

// sign(s) e^|s| / Σ e^|s|.
struct CogShape {
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s == kNothing<T> ? s : absolute<T>(s);
  }
  template <class T>
  static Share<T> share(Vec<T> s, T shift) {
    const Vec<T> e = exp_below<T>(size<T>(s) - shift);
    return {s == T(0) ? Vec<T>{} : with_sign_of<T>(e, s), e};
  }
  template <class T>
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> lse, Vec<T> delta) {
    const Vec<T> e = exp_below<T>(absolute<T>(s) - lse);
    const Vec<T> sign = s > T(0) ? splat<T>(1) : (s < T(0) ? splat<T>(-1) : Vec<T>{});
    g = e * (g - sign * delta) * sign * sign;
    s = e * sign;
  }
};

}  // namespace ogive::OGIVE_ISA
