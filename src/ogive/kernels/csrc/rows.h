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
  static constexpr bool floor_at_zero = false;
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s;
  }
  template <class T>
  static Share<T> share(Vec<T> s, T shift, T) {
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
  static constexpr bool floor_at_zero = false;
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s == kNothing<T> ? s : absolute<T>(s);
  }
  template <class T>
  static Share<T> share(Vec<T> s, T shift, T) {
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

// max(e^s − 1, 0) / Σ |e^s − 1|, by expm1 near zero so that no digits are lost.
struct SoftpickShape {
  static constexpr bool floor_at_zero = true;
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s;
  }
  template <class T>
  static Vec<T> lifted(Vec<T> s, Vec<T> shift, Vec<T> unit) {  // (e^s − 1) e^−shift
    const Vec<T> close = expm1_negative<T>(-absolute<T>(s));
    // For 0 < s < 1: e^s − 1 = −expm1(−s) e^s.
    const Vec<T> raised = exp_below<T>(s - shift);
    const Vec<T> near_zero = s > T(0) ? -close * raised : close * unit;
    return absolute<T>(s) < T(1) ? near_zero : raised - unit;
  }
  template <class T>
  static Share<T> share(Vec<T> s, T shift, T unit) {
    const Vec<T> all = lifted<T>(s, splat<T>(shift), splat<T>(unit));
    const Vec<T> seen = s == kNothing<T> ? Vec<T>{} : all;
    return {s > T(0) ? seen : (s <= T(0) ? Vec<T>{} : s), absolute<T>(seen)};
  }
  template <class T>
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> lse, Vec<T> delta) {
    // A row of zeros has no mass: its weights and its gradients are zero.
    const Vec<T> shift = lse == kNothing<T> ? splat<T>(std::numeric_limits<T>::max()) : lse;
    // With lse below zero e^−lse may be large; e^(s − lse) stays at most about 1 / |e^s − 1|.
    const Vec<T> unit = exp_bounded<T>(-shift), raised = exp_bounded<T>(s - shift);
    const Vec<T> close = expm1_negative<T>(-absolute<T>(s));
    const Vec<T> near_zero = s > T(0) ? -close * raised : close * unit;
    const Vec<T> all = absolute<T>(s) < T(1) ? near_zero : raised - unit;
    const Vec<T> up = s > T(0) ? splat<T>(1) : Vec<T>{};
    const Vec<T> sign = s > T(0) ? splat<T>(1) : (s < T(0) ? splat<T>(-1) : Vec<T>{});
    g = raised * (up * g - sign * delta);
    s = up * all;
  }
};

}  // namespace ogive::OGIVE_ISA
