// Activations inside a score, by number: kernels/compiled.py lists their names in this order.
#pragma once

#include "curves.h"
#include "problem.h"

namespace ogive::OGIVE_ISA {

enum Act : int64_t {
  kNoAct, kTanh, kRelu, kLeakyRelu, kSilu, kSigmoid, kSoftplus, kGelu, kRelu2, kElu, kElu1,
  kHardtanh, kMish
};

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

struct Elu {  // s above zero, e^s − 1 below
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T>) {
    return s > T(0) ? s : expm1_negative<T>(s);
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), s > T(0) ? splat<T>(1) : exp_below<T>(s)};
  }
};

// The same plus one: e^s itself below zero, which e^s − 1 + 1 has no digits of far below.
struct Elu1 {
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return both<T>(s, c).value;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T>) {
    const Vec<T> e = exp_below<T>(s > T(0) ? Vec<T>{} : s);  // 1 above zero
    return {s > T(0) ? s + T(1) : e, e};
  }
};

struct Hardtanh {  // s clipped to [−1, 1]
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T>) {
    return s > T(1) ? splat<T>(1) : (s < T(-1) ? splat<T>(-1) : s);
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), absolute<T>(s) < T(1) ? splat<T>(1) : Vec<T>{}};
  }
};

// s tanh(log(1 + e^s)). With w = e^−|s| the tanh is (1 + 2w) / (1 + 2w + 2w²) above zero and
// (w² + 2w) / (w² + 2w + 2) below; neither loses a digit.
struct Mish {
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return both<T>(s, c).value;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T>) {
    const Vec<T> w = exp_below<T>(-absolute<T>(s)), one = w + T(1);
    const auto up = s > T(0);
    const Vec<T> square = w * w, twice = T(2) * w;
    const Vec<T> over = up ? twice + T(1) : square + twice;
    const Vec<T> under = over + (up ? T(2) * square : splat<T>(2));
    const Vec<T> share = over / under;
    // s σ(s) (1 − tanh²), with σ = 1 / (1 + w) or w / (1 + w) and 1 − tanh² = (2 (1 + w) / under)²,
    // times w² above zero.
    const Vec<T> rest = T(4) * one / (under * under) * (up ? square : w);
    return {s * share, share + s * rest};
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
    case kRelu2: return with(Relu2{}, 1.0);
    case kElu: return with(Elu{}, 0.0);
    case kElu1: return with(Elu1{}, 0.0);
    case kHardtanh: return with(Hardtanh{}, 0.0);
    case kMish: return with(Mish{}, 0.0);
    default: return;
  }
}

}  // namespace ogive::OGIVE_ISA
