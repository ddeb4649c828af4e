// Weight functions of one score: value and slope, once per scalar. Loops are elsewhere.
//
// Each gets the score s and the row's constant c, which Python computes from the number of keys
// the row may see (−log n for sigmoid with its default bias, 1/n^p for those over n).
#pragma once

#include "simd.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct Pair {
  Vec<T> value, slope;
};

struct Sigmoid {  // σ(s + c)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return logistic<T>(s + c);
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    const Odds<T> o = odds<T>(s + c);
    return {o.below, o.slope};
  }
};

struct Tanh {  // c tanh(s)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return hyperbolic_tangent<T>(s) * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), tanh_slope<T>(s) * c};
  }
};

struct Relu {  // c max(s, 0)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return larger<T>(Vec<T>{}, s) * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), s > T(0) ? c : Vec<T>{}};
  }
};

struct Relu2 {  // c max(s, 0)²
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    const Vec<T> r = larger<T>(Vec<T>{}, s);
    return r * r * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    const Vec<T> r = larger<T>(Vec<T>{}, s);
    return {r * r * c, T(2) * r * c};
  }
};

struct Silu {  // c s σ(s)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return s * logistic<T>(s) * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    const Odds<T> o = odds<T>(s);
    return {s * o.below * c, o.below * (T(1) + s * o.above) * c};
  }
};

struct Gelu {  // c s Φ(s)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    const Vec<T> above = normal_tail(absolute<T>(s)).above;
    return s * (s > T(0) ? T(1) - above : above) * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    const NormalTail<T> tail = normal_tail(absolute<T>(s));
    const Vec<T> below = s > T(0) ? T(1) - tail.above : tail.above;
    const Vec<T> density = tail.bell * T(0.39894228040143267794);
    return {s * below * c, (below + s * density) * c};
  }
};

struct Softplus {  // c log(1 + e^s)
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    const Vec<T> upper = larger<T>(Vec<T>{}, s);
    return (upper + log1p_unit<T>(exp_below<T>(-absolute<T>(s)))) * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {value<T>(s, c), logistic<T>(s) * c};
  }
};

struct Identity {  // c s
  template <class T>
  static Vec<T> value(Vec<T> s, Vec<T> c) {
    return s * c;
  }
  template <class T>
  static Pair<T> both(Vec<T> s, Vec<T> c) {
    return {s * c, c};
  }
};

}  // namespace ogive::OGIVE_ISA
