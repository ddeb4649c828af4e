// Numbers as tensors store them: of the type that is computed with, bfloat16 or float16.
//
// Half precision is widened while it is read and rounded once, to nearest even, when it is written.
#pragma once

#include <cstring>

#include "problem.h"
#include "simd.h"

namespace ogive::OGIVE_ISA {

typedef uint16_t Halves __attribute__((
    vector_size(2 * Lanes<float>::count), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(OGIVE_VECTOR_BYTES), may_alias));

inline Words widened(const uint16_t* from) {
  return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words);
}
inline void narrowed(uint16_t* to, Words bits) {
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(bits, Halves);
}

template <class Half>
float lane_of(uint16_t number) {
  uint16_t some[Lanes<float>::count] = {number};
  return Half::load(some)[0];
}

// How a tensor of kind K is read and written, a vector or a number at a time.
template <class T, Kind K>
struct Stored {
  using Type = T;
  static Vec<T> load(const T* from) { return *reinterpret_cast<const Vec<T>*>(from); }
  static void store(T* to, Vec<T> v) { *reinterpret_cast<Vec<T>*>(to) = v; }
  static T one(T from) { return from; }
};

template <>
struct Stored<float, kBfloat16> {
  using Type = uint16_t;
  static Vec<float> load(const uint16_t* from) { return (Vec<float>)(widened(from) << 16); }
  static float one(uint16_t from) { return lane_of<Stored>(from); }
  static void store(uint16_t* to, Vec<float> v) {
    const Words bits = (Words)v;
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    narrowed(to, v == v ? rounded : (bits >> 16) | 0x40);
  }
};

// The exponents differ by 112; a float16 without exponent is a number of 2^−24ths, which the same
// multiplication makes normal.
template <>
struct Stored<float, kFloat16> {
  using Type = uint16_t;
  static Vec<float> load(const uint16_t* from) {
    const Words bits = widened(from), size = (bits & 0x7fff) << 13;
    const Words scaled = (Words)((Vec<float>)size * 0x1p112f);
    const Words special = size | 0x7f800000;
    const Words mine = (bits & 0x7c00) == 0x7c00 ? special : scaled;
    return (Vec<float>)(mine | (bits & 0x8000) << 16);
  }
  static float one(uint16_t from) { return lane_of<Stored>(from); }
  static void store(uint16_t* to, Vec<float> v) {
    const Words bits = (Words)v, size = bits & 0x7fffffff;
    const Words normal = (size - (112u << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
    const Words small = (Words)((Vec<float>)size + 0.5f) - 0x3f000000;
    Words mine = size < 0x38800000 ? small : normal;
    mine = size >= 0x47800000 ? Words{} + 0x7c00 : mine;
    mine = size > 0x7f800000 ? (Words{} + 0x7e00) | ((size >> 13) & 0x3ff) : mine;
    narrowed(to, mine | (bits >> 16 & 0x8000));
  }
};

// The first `count` lanes; the rest are zero, and are not touched.
template <class T, Kind K>
Vec<T> load_some(const typename Stored<T, K>::Type* from, int64_t stride, int64_t count) {
  constexpr int W = Lanes<T>::count;
  if (count >= W && stride == 1) return Stored<T, K>::load(from);
  typename Stored<T, K>::Type some[W] = {};
  for (int64_t k = 0; k < count && k < W; ++k) some[k] = from[k * stride];
  return Stored<T, K>::load(some);
}
template <class T, Kind K>
void store_some(typename Stored<T, K>::Type* to, int64_t stride, int64_t count, Vec<T> v) {
  constexpr int W = Lanes<T>::count;
  if (count >= W && stride == 1) return Stored<T, K>::store(to, v);
  typename Stored<T, K>::Type some[W];
  Stored<T, K>::store(some, v);
  for (int64_t k = 0; k < count && k < W; ++k) to[k * stride] = some[k];
}

template <Kind K>
struct KindOf {
  static constexpr Kind value = K;
};

// Runs `with` for the kind of a tensor.
template <class T, class With>
void with_kind(const View& view, const With& with) {
  if constexpr (sizeof(T) == 4) {
    if (view.kind == kBfloat16) return with(KindOf<kBfloat16>{});
    if (view.kind == kFloat16) return with(KindOf<kFloat16>{});
  }
  with(KindOf<kOwn>{});
}

}  // namespace ogive::OGIVE_ISA
