// Weight functions that share one unit of weight among a row: softmax and its kin.
//
// Each is w_j = weight(s_j) / total with total = Σ_k mass(s_k) (+ a sink). Forward runs over the
// row in spans and rescales what it has by e^(old shift − new shift); of the total it leaves one
// number, `kept`, from which `turn` has it again (for softmax its log, lse). Backward needs that
// and delta = Σ_v grad_out · out. Hidden scores come as −∞. No shift lies below `floor`.
#pragma once

#include "simd.h"

namespace ogive::OGIVE_ISA {

template <class T>
constexpr T kNothing = -std::numeric_limits<T>::infinity();

template <class T>
struct Share {
  Vec<T> weight, mass;
};

// What shapes keep whose total is a sum of exponentials: its log.
template <class T>
T log_total(T top, T total) {
  return total == 0 ? kNothing<T> : top + std::log(total);
}

// e^s / (Σ e^s + e^z), z the logit of a sink.
struct SoftmaxShape {
  template <class T>
  static constexpr T floor = kNothing<T>;
  template <class T>
  static T kept(T top, T total) {
    return log_total(top, total);
  }
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s;
  }
  template <class T>
  static Share<T> share(Vec<T> s, Vec<T> shift) {
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
  static constexpr T floor = kNothing<T>;
  template <class T>
  static T kept(T top, T total) {
    return log_total(top, total);
  }
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s == kNothing<T> ? s : absolute<T>(s);
  }
  template <class T>
  static Share<T> share(Vec<T> s, Vec<T> shift) {
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

// max(e^s − 1, 0) / Σ |e^s − 1|. All by |e^s − 1| = (1 − e^−|s|) e^max(s, 0), which keeps its digits
// where s is tiny. For the same reason the total is kept as itself, negative, where it is small,
// and as its log, then positive, where it may overflow.
struct SoftpickShape {
  template <class T>
  static constexpr T floor = 0;
  template <class T>
  static T kept(T top, T total) {
    return top < 1 ? -total * std::exp(top) : log_total(top, total);
  }
  template <class T>
  static Vec<T> size(Vec<T> s) {
    return s;
  }
  template <class T>
  static Share<T> share(Vec<T> s, Vec<T> shift) {
    const Vec<T> raised = s > T(0) ? s : Vec<T>{};
    const Vec<T> all = -expm1_negative<T>(-absolute<T>(s)) * exp_below<T>(raised - shift);
    const Vec<T> mass = s == kNothing<T> ? Vec<T>{} : all;
    return {s > T(0) ? mass : Vec<T>{}, mass};
  }
  template <class T>
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> kept, Vec<T> delta) {
    const Vec<T> small = kept < T(0) ? T(-1) / kept : Vec<T>{};
    const Vec<T> over = kept > T(0) ? splat<T>(1) : small, shift = kept > T(0) ? kept : Vec<T>{};
    const Vec<T> slope = exp_below<T>(s - shift) * over;
    const Vec<T> weight = -expm1_negative<T>(-absolute<T>(s)) * slope;
    const Vec<T> signed_delta = s > T(0) ? delta : (s < T(0) ? -delta : Vec<T>{});
    g = slope * ((s > T(0) ? g : Vec<T>{}) - signed_delta);
    s = s > T(0) ? weight : Vec<T>{};
  }
};

// s / Σ s, a total of either sign; where it is zero, nothing weighs anything.
struct LinearShape {
  template <class T>
  static constexpr T floor = 0;
  template <class T>
  static T kept(T, T total) {
    return total;
  }
  template <class T>
  static Vec<T> size(Vec<T>) {
    return Vec<T>{};
  }
  template <class T>
  static Share<T> share(Vec<T> s, Vec<T>) {
    const Vec<T> seen = s == kNothing<T> ? Vec<T>{} : s;
    return {seen, seen};
  }
  template <class T>
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> total, Vec<T> delta) {
    const Vec<T> over = total == T(0) ? Vec<T>{} : T(1) / total;
    g = (g - delta) * over;
    s *= over;
  }
};

}  // namespace ogive::OGIVE_ISA
