// Vectors as wide as the instruction set that this file is compiled for, and their mathematics.
//
// Everything is written with the compiler's vector types, so one source serves every width.
// Each function says how near it comes; tests measure it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef OGIVE_VECTOR_BYTES
#define OGIVE_VECTOR_BYTES 16
#endif

namespace ogive::OGIVE_ISA {

template <class T>
struct Lanes {
  static constexpr int count = OGIVE_VECTOR_BYTES / sizeof(T);
  using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef T type __attribute__((vector_size(OGIVE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef Integer integers
      __attribute__((vector_size(OGIVE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef std::make_unsigned_t<Integer> naturals __attribute__((vector_size(OGIVE_VECTOR_BYTES)));
};
template <class T>
using Vec = typename Lanes<T>::type;
template <class T>
using Int = typename Lanes<T>::integers;

template <class T>
inline Vec<T> load(const T* from) {
  return *reinterpret_cast<const Vec<T>*>(from);
}
template <class T>
inline void store(T* to, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(to) = v;
}
// x − 0 is x for every x, which compilers know; 0 + x is not, and costs an addition.
template <class T>
inline Vec<T> splat(T x) {
  return x - Vec<T>{};
}
// a > b ? a : b, so b where either is NaN. Compilers make two instructions of that, x86 has one.
template <class T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
#if defined(__x86_64__)
  if constexpr (sizeof(a) == 16 && sizeof(T) == 4) return (Vec<T>)_mm_max_ps((__m128)a, (__m128)b);
  if constexpr (sizeof(a) == 16 && sizeof(T) == 8)
    return (Vec<T>)_mm_max_pd((__m128d)a, (__m128d)b);
#if OGIVE_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_max_ps((__m256)a, (__m256)b);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif OGIVE_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_max_ps((__m512)a, (__m512)b);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_max_pd((__m512d)a, (__m512d)b);
#endif
#endif
  return a > b ? a : b;
}
template <class T>
inline Vec<T> absolute(Vec<T> a) {
  using I = typename Lanes<T>::Integer;
  const I sign = std::numeric_limits<I>::min();
  return (Vec<T>)((Int<T>)a & ~(Int<T>{} + sign));
}
template <class T>
inline Vec<T> with_sign_of(Vec<T> size, Vec<T> sign) {
  using I = typename Lanes<T>::Integer;
  const Int<T> bit = Int<T>{} + std::numeric_limits<I>::min();
  return (Vec<T>)(((Int<T>)size & ~bit) | ((Int<T>)sign & bit));
}
// Bytes as whole numbers, one for each lane. GCC 12 makes one instruction a byte of a conversion.
template <class T>
inline Int<T> from_bytes(const uint8_t* bytes) {
  constexpr int W = Lanes<T>::count;
#if defined(__x86_64__) && OGIVE_VECTOR_BYTES > 16
  int64_t eight[2] = {};
  std::memcpy(eight, bytes, W);
  const __m128i all = _mm_set_epi64x(eight[1], eight[0]);
#if OGIVE_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) return (Int<T>)_mm512_cvtepu8_epi32(all);
  if constexpr (sizeof(T) == 8) return (Int<T>)_mm512_cvtepu8_epi64(all);
#else
  if constexpr (sizeof(T) == 4) return (Int<T>)_mm256_cvtepu8_epi32(all);
  if constexpr (sizeof(T) == 8) return (Int<T>)_mm256_cvtepu8_epi64(all);
#endif
#else
  typedef uint8_t Bytes __attribute__((vector_size(W), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(bytes), Int<T>);
#endif
}
// Lane i of the result is lane i ^ Step.
template <class T, int Step, int... I>
inline Vec<T> exchanged(Vec<T> v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ Step)...);
}
template <class T>
using Places = std::make_integer_sequence<int, Lanes<T>::count>;

// All lanes into one, by halves: log₂ W steps, in an order that nothing changes.
template <class T, int Step = Lanes<T>::count / 2>
inline T sum(Vec<T> v) {
  v += exchanged<T, Step>(v, Places<T>{});
  if constexpr (Step > 1) return sum<T, Step / 2>(v);
  return v[0];
}
template <class T, int Step = Lanes<T>::count / 2>
inline T maximum(Vec<T> v) {
  v = larger<T>(v, exchanged<T, Step>(v, Places<T>{}));
  if constexpr (Step > 1) return maximum<T, Step / 2>(v);
  return v[0];
}

// One step of a transposition: the two off-diagonal blocks of Step lanes change places.
template <class T, int Step, int... I>
inline void swap_blocks(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
  constexpr int W = Lanes<T>::count;
  const Vec<T> first = __builtin_shufflevector(a, b, (I & Step ? W + I - Step : I)...);
  b = __builtin_shufflevector(a, b, (I & Step ? W + I : I + Step)...);
  a = first;
}
// W rows of W lanes become columns.
template <class T, int Step = 1>
inline void transpose(Vec<T>* rows) {
  constexpr int W = Lanes<T>::count;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i)
    if (!(i & Step)) swap_blocks<T, Step>(rows[i], rows[i + Step], Places<T>{});
  if constexpr (2 * Step < W) transpose<T, 2 * Step>(rows);
}

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float low = -87.33f, high = 88.72f, log2e = 1.44269504088896341f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float round = 12582912.f;  // 1.5 · 2^23: adding it rounds to whole numbers
  static constexpr int mantissa = 23;
};
template <>
struct ExpConstants<double> {
  static constexpr double low = -708.39, high = 709.78, log2e = 1.4426950408889634074;
  static constexpr double ln2_high = 6.93147180369123816490e-1, ln2_low = 1.90821492927058770002e-10;
  static constexpr double round = 6755399441055744.0;  // 1.5 · 2^52
  static constexpr int mantissa = 52;
};

// (e^r − 1 − r) / r², |r| ≤ ln 2 / 2, from the power 0 up: in double its Taylor series, in float
// the polynomial of least relative error of e^r (3e-9), found by reweighted least squares.
template <class T>
constexpr double kExpTail[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                               1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                               1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
template <>
constexpr double kExpTail<float>[] = {0.4999999403953552, 0.1666652113199234, 0.04166838899254799,
                                      0.00836874544620514, 0.0013814540579915047};

template <class T>
inline Vec<T> exp_tail(Vec<T> r) {
  constexpr int terms = sizeof(kExpTail<T>) / sizeof(double);
  Vec<T> p = splat<T>(T(kExpTail<T>[terms - 1]));
#pragma GCC unroll 16
  for (int k = terms - 2; k >= 0; --k) p = p * r + T(kExpTail<T>[k]);
  return p;
}

template <class T>
struct Reduced {
  Vec<T> r;
  Int<T> shifted;  // x = n ln 2 + r; n stands in the low bits
};

template <class T>
inline Reduced<T> reduce(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> shifted = x * C::log2e + C::round, n = shifted - C::round;
  return {(x - n * C::ln2_high) - n * C::ln2_low, (Int<T>)shifted};
}

// x 2^n for an n as `reduce` leaves it and a normal result. Lanes that are not used may overflow, which
// only unsigned numbers may.
template <class T>
inline Vec<T> times_power(Vec<T> x, Int<T> shifted) {
  using Bits = typename Lanes<T>::naturals;
  return (Vec<T>)((Bits)x + ((Bits)shifted << ExpConstants<T>::mantissa));
}

// e^x within 2 ulp, and the smallest normal number below it; NaN stays NaN. x ≤ high is the caller's.
template <class T>
inline Vec<T> exp_above(Vec<T> x) {
  const Reduced<T> parts = reduce<T>(larger<T>(splat<T>(ExpConstants<T>::low), x));
  const Vec<T> r = parts.r, p = exp_tail<T>(r);
  return times_power<T>((p * r + T(1)) * r + T(1), parts.shifted);
}

// The same with 0 below the smallest normal number.
template <class T>
inline Vec<T> exp_below(Vec<T> x) {
  return (Vec<T>)(~(x < ExpConstants<T>::low) & (Int<T>)exp_above<T>(x));
}

// e^x and e^x − 1, each within 2 ulp, where e^x is normal.
template <class T>
struct Growth {
  Vec<T> whole, less;
};

template <class T>
inline Growth<T> growth(Vec<T> x) {
  const Reduced<T> parts = reduce<T>(x);
  const Vec<T> r = parts.r, power = times_power<T>(splat<T>(1), parts.shifted);
  const Vec<T> head = exp_tail<T>(r) * r * r + r;
  return {head * power + power, head * power + (power - T(1))};
}

// e^x − 1 for x ≤ 0 within 2 ulp, also near 0.
template <class T>
inline Vec<T> expm1_negative(Vec<T> x) {
  const T floor = sizeof(T) == 4 ? T(-20) : T(-40);
  return growth<T>(larger<T>(splat<T>(floor), x)).less;
}

// 1 / (1 + e^−x), its complement and their product, each within 2 ulp.
template <class T>
struct Odds {
  Vec<T> below, above, slope;  // σ(x), σ(−x), σ(x) σ(−x)
};

template <class T>
inline Odds<T> odds(Vec<T> x) {
  const Vec<T> e = exp_below<T>(-absolute<T>(x));
  const Vec<T> high = T(1) / (T(1) + e), low = e * high;  // both NaN where x is
  // The product shows twice how 1 + e was rounded: a step towards e / (1 + e)² takes that back.
  const Vec<T> near = low * high, square = e * (e + T(2)) + T(1);
  const Vec<T> slope = near + high * high * (e - square * near);
  return {x < T(0) ? low : high, x < T(0) ? high : low, slope};
}

// σ(x) alone is 1 / (1 + e^−x): one division, no exchange of halves. Below the smallest normal
// number it is 0.
template <class T>
inline Vec<T> logistic(Vec<T> x) {
  constexpr T low = ExpConstants<T>::low;
  const Vec<T> s = T(1) / (T(1) + exp_above<T>(-larger<T>(splat<T>(low), x)));
  return (Vec<T>)(~(x < low) & (Int<T>)s);
}

// tanh within 3 ulp, in double within 2: where e = e^(−2|x|) − 1 is below −1/2, e + 1 is exact, and
// 1 − 2 (e + 1) / (e + 2) forgives what −e / (e + 2) shows of the rounding of e + 2.
template <class T>
inline Vec<T> hyperbolic_tangent(Vec<T> x) {
  const Vec<T> e = expm1_negative<T>(T(-2) * absolute<T>(x));
  Vec<T> size;
  if constexpr (sizeof(T) == 8) {
    const Vec<T> part = (e < T(-0.5) ? T(2) * (e + T(1)) : -e) / (e + T(2));
    size = e < T(-0.5) ? T(1) - part : part;
  } else {
    size = -e / (e + T(2));
  }
  return x == x ? with_sign_of<T>(size, x) : x;
}

// The slope of tanh, 4e / (1 + e)² with e = e^(−2|x|): 1 − tanh² has no digits left where tanh is
// nearly 1. The square by its terms, which e + 2 rounds less than 1 + e twice.
template <class T>
inline Vec<T> tanh_slope(Vec<T> x) {
  const Vec<T> e = exp_below<T>(T(-2) * absolute<T>(x));
  return T(4) * e / (e * (e + T(2)) + T(1));
}

// log(1 + t) for 0 ≤ t ≤ 1 within 2 ulp. In float (log(1 + t) − t) / t² by the polynomial that meets
// it at Chebyshev's points, in double 2 artanh(t / (2 + t)), an odd series in z ≤ 1/3.
template <class T>
inline Vec<T> log1p_unit(Vec<T> t) {
  if constexpr (sizeof(T) == 4) {
    constexpr float tail[] = {-0.4999999702f, 0.3333284259f, -0.2498652637f,
                              0.1985410601f,  -0.1584756523f, 0.1156184524f,
                              -0.06675772369f, 0.02522405423f, -0.004466211423f};
    Vec<T> p = splat<T>(tail[8]);
#pragma GCC unroll 8
    for (int k = 7; k >= 0; --k) p = p * t + tail[k];
    return t * t * p + t;
  } else {
    constexpr int terms = 17;
    Vec<T> z = t / (t + T(2)), square = z * z;
    Vec<T> p = splat<T>(T(1) / T(2 * terms + 1));
#pragma GCC unroll 20
    for (int k = terms - 1; k >= 1; --k) p = p * square + T(1) / T(2 * k + 1);
    return t - z * (t - T(2) * square * p);  // 2 z = t − t z, in which z is rounded, but small
  }
}

// The upper tail of the normal distribution for x ≥ 0, 1 − Φ(x), and e^(−x²/2). Their ratio is
// smooth, and an expansion in t = c / (c + x).
template <class T>
struct NormalTail {
  Vec<T> above, bell;
};

inline NormalTail<float> normal_tail(Vec<float> x) {  // the ratio, t P(t), was fitted to 1.5e-8
  constexpr float ratio[] = {0.1064002444f, 0.1060279944f, 0.1023032952f, 0.06458191581f, 0.1272431516f,
                             -0.09994529109f, 0.2015796211f, -0.1384582429f, 0.03026731863f};
  const Vec<float> t = 3.75f / (3.75f + x), bell = exp_below<float>(x * x * -0.5f);
  Vec<float> p = splat<float>(ratio[8]);
#pragma GCC unroll 16
  for (int k = 7; k >= 0; --k) p = p * t + ratio[k];
  return {t * p * bell, bell};
}

inline NormalTail<double> normal_tail(Vec<double> x) {  // t exp(series(t) − x²/2)
  // The Chebyshev series of log(erfc(x)) + x² − log t with t = 2 / (2 + x), of 40 digits.
  constexpr double series[] = {
    -1.3026537197817094, 0.64196979235649021, 0.019476473204185836, -0.0095615147868086323,
    -0.00094659534448203692, 0.00036683949785276145, 4.2523324806907769e-05, -2.0278578112534242e-05,
    -1.6242900046470256e-06, 1.3036558355805232e-06, 1.5626441722066142e-08, -8.5238095914926541e-08,
    6.5290544390988515e-09, 5.0593434955514693e-09, -9.9136415649303307e-10, -2.273651222931836e-10,
    9.646791102015527e-11, 2.3940380830391146e-12, -6.8860275264975532e-12, 8.9448792730907253e-13,
    3.1309213993429581e-13, -1.1270822361367252e-13, 3.8109052551892321e-16, 7.1060976136092371e-15,
    -1.5230282014571043e-15, -9.4574945712912334e-17, 1.210237189224279e-16, -2.8166630877471771e-17};
  const Vec<double> half = x * x * -0.5, t = 2 / (2 + x * 0.70710678118654752440);
  const Vec<double> twice = 4 * t - 2;
  Vec<double> d{}, before{};
#pragma GCC unroll 32
  for (int j = 27; j > 0; --j) {
    const Vec<double> now = twice * d - before + series[j];
    before = d;
    d = now;
  }
  const Vec<double> log_ratio = 0.5 * (series[0] + twice * d) - before;
  return {0.5 * t * exp_below<double>(log_ratio + half), exp_below<double>(half)};
}

}  // namespace ogive::OGIVE_ISA
