// Maps of single numbers, value and slope, within 2 ulp in float: for whole tensors on Q, K and V.
//
// Curves of weight functions (curves.h) may flush results below the smallest normal number to 0 and
// lose another ulp; these may not. A power of two is multiplied in last and in two steps, so that
// even denormal results are rounded once.
#pragma once

#include <string_view>

#include "curves.h"

namespace ogive::OGIVE_ISA {

// e^x |x| is nothing below this.
template <class T>
constexpr T kVanishes = sizeof(T) == 4 ? T(-115) : T(-760);

// e^x = m · 2^n for x ≤ high, m between 0.7 and 1.5.
template <class T>
struct Exp {
  Vec<T> m;
  Int<T> n;

  explicit Exp(Vec<T> x) {
    using C = ExpConstants<T>;
    x = larger<T>(splat<T>(kVanishes<T>), x);
    const Vec<T> shifted = x * C::log2e + C::round, whole = shifted - C::round;
    const Vec<T> first = x - whole * C::ln2_high, r = first - whole * C::ln2_low;
    const Vec<T> lost = (first - r) - whole * C::ln2_low;
    m = T(1) + (r + (exp_tail<T>(r) * r * r + lost));
    n = (Int<T>)shifted - (Int<T>)splat<T>(C::round);
  }
  // x · 2^n, rounded once.
  Vec<T> scaled(Vec<T> x) const {
    constexpr int mantissa = ExpConstants<T>::mantissa;
    constexpr typename Lanes<T>::Integer bias = sizeof(T) == 4 ? 127 : 1023;
    const Int<T> half = n >> 1;
    return x * (Vec<T>)((half + bias) << mantissa) * (Vec<T>)((n - half + bias) << mantissa);
  }
  Vec<T> value() const { return scaled(m); }
  // e^x to be added to a number near 1, where less than the least normal number is nothing.
  Vec<T> beside_one() const {
    constexpr typename Lanes<T>::Integer least = sizeof(T) == 4 ? -126 : -1022;
    return times_power<T>(m, n > least ? n : Int<T>{} + least);
  }
};

template <class T>
inline Vec<T> smaller(Vec<T> a, T most) {
  return a > most ? splat<T>(most) : a;  // NaN stays
}

// Coefficients of (tanh(x) / x − 1) / x² in x² ≤ 0.36, from Chebyshev fits with 40 digits.
template <class T>
constexpr double kTanhNear[] = {
    -0.33333333333333326,  0.13333333333330197,  -0.05396825396475762,   0.02186948838378093,
    -0.008863232113541474, 0.0035920831663434575, -0.001455464802800745, 0.0005880541548418729,
    -0.0002322510406793851, 8.154737806525365e-05, -1.833596211003942e-05};
template <>
constexpr double kTanhNear<float>[] = {-0.33333333231207923, 0.133333128668618,
                                       -0.05396155178134269, 0.02178832199710852,
                                       -0.008410070801530736, 0.002370765640497788};

template <class T>
inline Vec<T> tanh_near(Vec<T> x) {
  constexpr int terms = sizeof(kTanhNear<T>) / sizeof(double);
  const Vec<T> square = x * x;
  Vec<T> p = splat<T>(T(kTanhNear<T>[terms - 1]));
#pragma GCC unroll 16
  for (int k = terms - 2; k >= 0; --k) p = p * square + T(kTanhNear<T>[k]);
  return x + x * square * p;
}

// log(1 + t) / t for 0 ≤ t ≤ 1: in float a Chebyshev fit (8e-10).
template <class T>
inline Vec<T> log1p_over(Vec<T> t) {
  if constexpr (sizeof(T) == 4) {
    constexpr double c[] = {0.9999999991556823,   -0.4999997949139123,  0.3333249754352652,
                            -0.24986496459409926, 0.19885820285008451,  -0.16087623009295732,
                            0.12377995867871511,  -0.08188040923582843, 0.041006573693958395,
                            -0.013187826565578388, 0.0019866965936534606};
    Vec<T> p = splat<T>(T(c[10]));
#pragma GCC unroll 16
    for (int k = 9; k >= 0; --k) p = p * t + T(c[k]);
    return p;
  } else {
    const Vec<T> small = T(1) - t * T(0.5);  // t² is nothing beside 1 here
    return t < T(1e-9) ? small : log1p_unit<T>(t) / (t < T(1e-9) ? splat<T>(1) : t);
  }
}

// top / (1 + t) for 0 ≤ t ≤ 3, with what the sum's rounding lost put back.
template <class T>
inline Vec<T> over_one_plus(Vec<T> top, Vec<T> t) {
  const Vec<T> whole = T(1) + t, big = t > T(1) ? t : splat<T>(1), less = t > T(1) ? splat<T>(1) : t;
  const Vec<T> lost = (big - whole) + less, q = top / whole;
  return q - q * (lost / whole);
}

// f in double of a float vector's halves.
template <class Of>
inline Vec<float> in_double(Vec<float> x, Of of) {
  constexpr int W = Lanes<double>::count;
  typedef float Half __attribute__((vector_size(OGIVE_VECTOR_BYTES / 2), aligned(4), may_alias));
  float numbers[2 * W];
  store<float>(numbers, x);
  for (int at = 0; at < 2 * W; at += W) {
    Half* half = reinterpret_cast<Half*>(numbers + at);
    *half = __builtin_convertvector(of(__builtin_convertvector(*half, Vec<double>)), Half);
  }
  return load<float>(numbers);
}

// e^x to 2e-10, for −115 ≤ x ≤ 20: enough for a float.
inline Vec<double> exp_of_float(Vec<double> x) {
  const Reduced<double> parts = reduce<double>(x);
  constexpr int terms = 7;
  Vec<double> p = splat<double>(kExpTail<double>[terms - 1]);
#pragma GCC unroll 8
  for (int k = terms - 2; k >= 0; --k) p = p * parts.r + kExpTail<double>[k];
  return times_power<double>((p * parts.r + 1.0) * parts.r + 1.0, parts.shifted);
}

struct TanhMap {
  template <class T>
  static Vec<T> value(Vec<T> x) {
    const Vec<T> size = absolute<T>(x);
    const Vec<T> far = T(1) - T(2) / (exp_above<T>(T(2) * smaller<T>(size, T(20))) + T(1));
    const Vec<T> y = with_sign_of<T>(size < T(0.6) ? tanh_near<T>(size) : far, x);
    return x == x ? y : x;
  }
  template <class T>
  static Vec<T> slope(Vec<T> x) {  // 4e / (1 + e)², e = e^(−2|x|)
    const Exp<T> e(T(-2) * absolute<T>(x));
    const Vec<T> small = e.beside_one();
    const Vec<T> y = e.scaled(over_one_plus<T>(T(4) * e.m, small * (small + T(2))));
    return x == x ? y : x;
  }
};

struct SoftplusMap {
  template <class T>
  static Vec<T> value(Vec<T> x) {  // max(x, 0) + log(1 + e^−|x|)
    const Exp<T> e(-absolute<T>(x));
    const Vec<T> tail = e.scaled(e.m * log1p_over<T>(e.beside_one()));
    const Vec<T> y = x > T(0) ? x + tail : tail;
    return x == x ? y : x;
  }
  template <class T>
  static Vec<T> slope(Vec<T> x) {
    const Exp<T> e(-absolute<T>(x));
    const Vec<T> share = over_one_plus<T>(x > T(0) ? splat<T>(1) : e.m, e.beside_one());
    const Vec<T> y = x > T(0) ? share : e.scaled(share);
    return x == x ? y : x;
  }
};

struct EluMap {
  template <class T>
  static Vec<T> value(Vec<T> x) {
    return x < T(0) ? expm1_negative<T>(x) : x;
  }
  template <class T>
  static Vec<T> slope(Vec<T> x) {
    const Vec<T> y = x > T(0) ? splat<T>(1) : Exp<T>(x > T(0) ? -x : x).value();
    return x == x ? y : x;
  }
};

struct Elu1Map {
  template <class T>
  static Vec<T> value(Vec<T> x) {  // e^x below 0, where e^x − 1 + 1 would lose its digits
    const Vec<T> y = x > T(0) ? x + T(1) : EluMap::slope<T>(x);
    return x == x ? y : x;
  }
  template <class T>
  static Vec<T> slope(Vec<T> x) {
    return EluMap::slope<T>(x);
  }
};

// x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); too many roundings for float.
struct MishMap {
  template <class T>
  static constexpr T kStraight = sizeof(T) == 4 ? T(20) : T(40);  // beyond: x itself

  template <class T>
  static Vec<T> value(Vec<T> x) {
    Vec<T> y;
    if constexpr (sizeof(T) == 4) {
      y = in_double(clamped<T>(x), [](Vec<double> wide) {
        const Vec<double> e = exp_of_float(wide), n = e * (e + 2.0);
        return wide * (n / (n + 2.0));
      });
    } else {
      const Exp<T> power(smaller<T>(x, kStraight<T>));
      const Vec<T> e = power.beside_one(), more = e + T(2);
      y = power.scaled(x * (power.m * more / (e * more + T(2))));
    }
    return ends<T>(x, y, x);
  }

  template <class T>
  static Vec<T> slope(Vec<T> x) {  // e ((e + 2)(n + 2) + 4x (1 + e)) / (n + 2)²
    Vec<T> y;
    if constexpr (sizeof(T) == 4) {
      y = in_double(clamped<T>(x), [](Vec<double> wide) {
        const Vec<double> e = exp_of_float(wide), below = e * (e + 2.0) + 2.0;
        return e * (((e + 2.0) * below + 4.0 * wide * (1.0 + e)) / (below * below));
      });
    } else {
      const Exp<T> power(smaller<T>(x, kStraight<T>));
      const Vec<T> e = power.beside_one(), more = e + T(2), below = e * more + T(2);
      const Vec<T> above = more * below + T(4) * x * (T(1) + e);
      y = power.scaled(power.m * (above / (below * below)));
    }
    return ends<T>(x, y, splat<T>(1));
  }

 private:
  template <class T>
  static Vec<T> clamped(Vec<T> x) {
    return larger<T>(splat<T>(kVanishes<T>), smaller<T>(x, kStraight<T>));
  }
  // y between the ends; below them nothing, and NaN for −∞; above them `straight`.
  template <class T>
  static Vec<T> ends(Vec<T> x, Vec<T> y, Vec<T> straight) {
    const Vec<T> shown = x < kVanishes<T> ? x * T(0) : y;
    return x > kStraight<T> ? straight : (x == x ? shown : x);
  }
};

}  // namespace ogive::OGIVE_ISA
