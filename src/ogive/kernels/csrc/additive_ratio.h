// tanh and sigmoid of a sum, from exponentials of its two terms that are computed once a row.
//
// The plain form has one exponential for each side: with u = e^−2q and B = e^2k,
//
//     tanh(q + k) = 1 − 2u / (u + B),     its slope 4 u B / (u + B)²,
//
// and sigmoid(q + k) = u / (u + B) with u = e^q and B = e^−k. The 1 leaves tanh a rounding that does
// not shrink with q and k. Where they are small the careful form keeps all digits: with u = e^|2q|
// and B = e^∓2k (− where q > 0, + elsewhere),
//
//     tanh(q + k) = ± ((u − 1) − (B − 1)) / (u + B)
//
// with both differences computed as such; since u ≥ 1, large opposite terms do no harm either.
//
// Two features share a division. Products of two denominators must stay in range: a feature of a
// tile in which some number is beyond that goes by its curve.
#pragma once

#include <cmath>

#include "additive.h"

namespace ogive::OGIVE_ISA {

// How far |factor · x| may go: forward so that (w u²)(B²) is in range, backward so that u B / (u + B)²
// times a small gradient is a normal number.
template <class T>
struct RatioReach;
template <>
struct RatioReach<float> {
  static constexpr float forward = 40, backward = 24, vector = 256;
};
template <>
struct RatioReach<double> {
  static constexpr double forward = 200, backward = 200, vector = 1e30;
};

struct TanhRatio {
  using Curve = Tanh;
  static constexpr int factor = 2, slope = 4;
  static constexpr bool careful = true;  // has a careful form, too
  // The plain form is start + rate · u / (u + B), u = e^(sign · factor · q), B = e^(−sign · factor · k).
  static constexpr int sign = -1, start = 1, rate = -2;
};

struct SigmoidRatio {
  using Curve = Sigmoid;
  static constexpr int factor = 1, slope = 1;
  static constexpr bool careful = false;
  static constexpr int sign = 1, start = 0, rate = 1;
};

// Tables of a feature of a span, a row of kSpan each: the plain form's B, then, for the careful
// form, e^2k − 1 and e^2k, and the same of −k.
template <class Ratio>
constexpr int64_t kRatioTable = (Ratio::careful ? 5 : 1) * kSpan;

template <class T>
inline Vec<T> within(Vec<T> x, T most) {
  return larger<T>(splat<T>(-most), -larger<T>(splat<T>(-most), -x));
}

template <class T>
struct Sizes {  // of |factor · x|
  T most, mean;
};

// What expm1_negative says of x ≤ 0 holds for all x whose e^x is in range.
template <class T, class Ratio>
Sizes<T> ratio_keys(const T* feature, int64_t filled, T* table) {
  Vec<T> most{}, total{};
  for (int64_t j = 0; j < kSpan; j += Lanes<T>::count) {
    const Vec<T> raw = T(Ratio::factor) * load<T>(feature + j);
    most = larger<T>(absolute<T>(raw), most);
    total += absolute<T>(raw);
    const Vec<T> x = within<T>(raw, RatioReach<T>::forward);
    store<T>(table + j, exp_below<T>(T(-Ratio::sign) * x));
    if constexpr (Ratio::careful) {
      store<T>(table + kSpan + j, expm1_negative<T>(x));
      store<T>(table + 2 * kSpan + j, exp_below<T>(x));
      store<T>(table + 3 * kSpan + j, expm1_negative<T>(-x));
      store<T>(table + 4 * kSpan + j, exp_below<T>(-x));
    }
  }
  return {maximum<T>(most), sum<T>(total) / T(filled)};
}

// One feature of a block of queries; `sign` says where the careful form's table starts.
template <class T>
struct RatioQueries {
  T plain[kBlock];                                       // u
  T u[kBlock], constant[kBlock], share[kBlock];          // f = (constant + share (B − 1)) / (u + B)
  int64_t sign[kBlock];
  Sizes<T> size;
};

template <class T, class Ratio>
void ratio_queries(const T* feature, int64_t rows, RatioQueries<T>& to) {
  Vec<T> most{}, total{};
  for (int64_t r = 0; r < kBlock; r += Lanes<T>::count) {
    const Vec<T> raw = T(Ratio::factor) * load<T>(feature + r), size = absolute<T>(raw);
    most = larger<T>(size, most);
    total += size;
    store<T>(to.plain + r, exp_below<T>(within<T>(T(Ratio::sign) * raw, RatioReach<T>::forward)));
    if constexpr (Ratio::careful) {
      const Vec<T> x = within<T>(size, RatioReach<T>::forward);
      store<T>(to.u + r, exp_below<T>(x));
      store<T>(to.constant + r, expm1_negative<T>(x));
    }
  }
  if constexpr (Ratio::careful)
    for (int64_t r = 0; r < kBlock; ++r) {
      const bool up = feature[r] > 0;
      to.constant[r] = up ? to.constant[r] : -to.constant[r];
      to.share[r] = up ? T(-1) : T(1);
      to.sign[r] = (up ? 3 : 1) * kSpan;
    }
  to.size = {maximum<T>(most), sum<T>(total) / T(rows)};
}

// A tile's tables. The feature after the last one is a stand-in that adds nothing.
template <class T>
struct RatioTile {
  const T* tables;                 // [d][stride]
  int64_t stride;
  const T* nothing;                // a table of zeros
  const RatioQueries<T>* queries;  // [d], then the stand-in's

  const T* table(const AdditiveTile<T>& t, int64_t d) const {
    return d < t.width ? tables + d * stride : nothing;
  }
};

inline int64_t feature_or_none(Features some, int64_t f, int64_t none) {
  return f < some.count ? some.at[f] : none;
}

// --- the plain form -----------------------------------------------------------------------------

template <class T>
struct PlainSide {  // feature d against query r
  T u, over, start;
  const T* table;
};

template <class T, class Ratio>
inline PlainSide<T> plain_side(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some,
                               int64_t f, int64_t r) {
  const int64_t d = feature_or_none(some, f, t.width);
  const T u = side.queries[d].plain[r], w = d < t.width ? t.vectors[d] : T(0);
  return {u, T(Ratio::rate) * w * u, T(Ratio::start) * w, side.table(t, d)};
}

template <class T>
inline Vec<T> plain_pair(const PlainSide<T>& a, const PlainSide<T>& b, int64_t j) {
  const Vec<T> under_a = a.u + load<T>(a.table + j), under_b = b.u + load<T>(b.table + j);
  return (a.over * under_b + b.over * under_a) / (under_a * under_b);
}

// Four features at a time; their starts are added before the tile's sum sees them, so what is
// summed stays as small as the scores.
template <class T, class Ratio>
void plain_scores(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some, T* scores) {
  constexpr int W = Lanes<T>::count;
  for (int64_t f = 0; f < some.count; f += 4)
    for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
      const PlainSide<T> a = plain_side<T, Ratio>(t, side, some, f, r);
      const PlainSide<T> b = plain_side<T, Ratio>(t, side, some, f + 1, r);
      const PlainSide<T> c = plain_side<T, Ratio>(t, side, some, f + 2, r);
      const PlainSide<T> d = plain_side<T, Ratio>(t, side, some, f + 3, r);
      const T start = (a.start + b.start) + (c.start + d.start);
      T* to = scores + r * kSpan;
      if (some.count - f > 2)
        for (int64_t j = t.columns.low; j < t.columns.high; j += W)
          store<T>(to + j, load<T>(to + j) +
                               (start + (plain_pair<T>(a, b, j) + plain_pair<T>(c, d, j))));
      else
        for (int64_t j = t.columns.low; j < t.columns.high; j += W)
          store<T>(to + j, load<T>(to + j) + (start + plain_pair<T>(a, b, j)));
    }
}

// 1 / x of every one of some vectors, two to a division.
template <class T, int Count>
inline void reciprocals(Vec<T>* x) {
  if constexpr (Count == 1) {
    x[0] = T(1) / x[0];
  } else {
#pragma GCC unroll 4
    for (int k = 0; k < Count; k += 2) {
      const Vec<T> both = T(1) / (x[k] * x[k + 1]), first = both * x[k + 1];
      x[k + 1] = both * x[k];
      x[k] = first;
    }
  }
}

// Gradients of feature d from `Rows` rows from r on; `vector` gets Σ g u / (u + B).
template <class T, class Ratio, int Rows>
inline void plain_rows(const AdditiveTile<T>& t, const RatioTile<T>& side, int64_t d, int64_t r,
                       const T* grads, const AdditiveGrads<T>& to, Vec<T>& vector) {
  constexpr int W = Lanes<T>::count;
  const T *table = side.table(t, d), *g = grads + r * kSpan;
  T* key = to.features + d * kSpan;
  const T slope = T(Ratio::slope) * t.vectors[d];
  T u[Rows], rate[Rows];  // copies, so that no store may touch them
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) rate[k] = slope * (u[k] = side.queries[d].plain[r + k]);
  Vec<T> plain[Rows] = {}, back[Rows] = {};
  for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
    const Vec<T> power = load<T>(table + j);
    Vec<T> under[Rows], sum = load<T>(key + j);
#pragma GCC unroll 4
    for (int k = 0; k < Rows; ++k) under[k] = u[k] + power;
    reciprocals<T, Rows>(under);
#pragma GCC unroll 4
    for (int k = 0; k < Rows; ++k) {
      const Vec<T> h = load<T>(g + k * kSpan + j) * under[k], p = h * (power * under[k]);
      plain[k] += h;
      back[k] += p;
      sum += rate[k] * p;
    }
    store<T>(key + j, sum);
  }
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) {
    to.queries[(r + k) * t.width + d] += rate[k] * sum<T>(back[k]);
    vector += u[k] * plain[k];
  }
}

// Rows that a loop over keys takes at once: as many as the registers hold.
constexpr int kRowsAtOnce = OGIVE_VECTOR_BYTES == 64 ? 4 : 2;

template <class T, class Ratio>
void plain_gradients(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some,
                     const T* grads, const AdditiveGrads<T>& to) {
  T all = 0;
  for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
    Vec<T> total{};
    for (int64_t j = t.columns.low; j < t.columns.high; j += Lanes<T>::count)
      total += load<T>(grads + r * kSpan + j);
    all += sum<T>(total);
  }
  for (int64_t f = 0; f < some.count; ++f) {
    const int64_t d = some.at[f];
    Vec<T> vector{};
    int64_t r = t.rows.low;
    for (; r + kRowsAtOnce <= t.rows.high; r += kRowsAtOnce)
      plain_rows<T, Ratio, kRowsAtOnce>(t, side, d, r, grads, to, vector);
    for (; r < t.rows.high; ++r) plain_rows<T, Ratio, 1>(t, side, d, r, grads, to, vector);
    to.vectors[d] += T(Ratio::start) * all + T(Ratio::rate) * sum<T>(vector);
  }
}

// --- the careful form ---------------------------------------------------------------------------

template <class T>
struct CarefulSide {  // feature d against query r
  T u, constant, share;
  const T* table;
};

template <class T>
inline CarefulSide<T> careful_side(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some,
                               int64_t f, int64_t r) {
  const int64_t d = feature_or_none(some, f, t.width);
  const RatioQueries<T>& q = side.queries[d];
  const T w = d < t.width ? t.vectors[d] : T(0);
  return {q.u[r], w * q.constant[r], w * q.share[r], side.table(t, d) + q.sign[r]};
}

template <class T>
struct CarefulPair {  // two fractions over one denominator
  Vec<T> over, under;
};

template <class T>
inline CarefulPair<T> careful_pair(const CarefulSide<T>& a, const CarefulSide<T>& b, int64_t j) {
  const Vec<T> under_a = a.u + load<T>(a.table + kSpan + j);
  const Vec<T> under_b = b.u + load<T>(b.table + kSpan + j);
  const Vec<T> over_a = a.constant + a.share * load<T>(a.table + j);
  const Vec<T> over_b = b.constant + b.share * load<T>(b.table + j);
  return {over_a * under_b + over_b * under_a, under_a * under_b};
}

// Features two pairs at a time, and what is left in one pair.
template <class T>
void careful_scores(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some, T* scores) {
  constexpr int W = Lanes<T>::count;
  int64_t f = 0;
  for (; some.count - f > 2; f += 4)
    for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
      const CarefulSide<T> a = careful_side<T>(t, side, some, f, r);
      const CarefulSide<T> b = careful_side<T>(t, side, some, f + 1, r);
      const CarefulSide<T> c = careful_side<T>(t, side, some, f + 2, r);
      const CarefulSide<T> d = careful_side<T>(t, side, some, f + 3, r);
      for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
        const CarefulPair<T> one = careful_pair<T>(a, b, j), two = careful_pair<T>(c, d, j);
        T* to = scores + r * kSpan + j;
        store<T>(to, load<T>(to) + (one.over / one.under + two.over / two.under));
      }
    }
  for (; f < some.count; f += 2)
    for (int64_t r = t.rows.low; r < t.rows.high; ++r) {
      const CarefulSide<T> a = careful_side<T>(t, side, some, f, r);
      const CarefulSide<T> b = careful_side<T>(t, side, some, f + 1, r);
      for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
        const CarefulPair<T> one = careful_pair<T>(a, b, j);
        T* to = scores + r * kSpan + j;
        store<T>(to, load<T>(to) + one.over / one.under);
      }
    }
}

// As plain_rows; each row has the table of its own sign.
template <class T, int Rows>
inline void careful_rows(const AdditiveTile<T>& t, const RatioTile<T>& side, int64_t d, int64_t r,
                         const T* grads, const AdditiveGrads<T>& to, Vec<T>& vector) {
  constexpr int W = Lanes<T>::count;
  const RatioQueries<T>& q = side.queries[d];
  const T *g = grads + r * kSpan, *tables[Rows];
  T* key = to.features + d * kSpan;
  const T slope = T(TanhRatio::slope) * t.vectors[d];
  T u[Rows], rate[Rows];
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) {
    tables[k] = side.table(t, d) + q.sign[r + k];
    rate[k] = slope * (u[k] = q.u[r + k]);
  }
  Vec<T> plain[Rows] = {}, parted[Rows] = {}, back[Rows] = {};
  for (int64_t j = t.columns.low; j < t.columns.high; j += W) {
    Vec<T> under[Rows], sum = load<T>(key + j);
#pragma GCC unroll 4
    for (int k = 0; k < Rows; ++k) under[k] = u[k] + load<T>(tables[k] + kSpan + j);
    reciprocals<T, Rows>(under);
#pragma GCC unroll 4
    for (int k = 0; k < Rows; ++k) {
      const Vec<T> h = load<T>(g + k * kSpan + j) * under[k];
      const Vec<T> p = h * (load<T>(tables[k] + kSpan + j) * under[k]);
      plain[k] += h;
      parted[k] += h * load<T>(tables[k] + j);
      back[k] += p;
      sum += rate[k] * p;
    }
    store<T>(key + j, sum);
  }
#pragma GCC unroll 4
  for (int k = 0; k < Rows; ++k) {
    to.queries[(r + k) * t.width + d] += rate[k] * sum<T>(back[k]);
    vector += q.constant[r + k] * plain[k] + q.share[r + k] * parted[k];
  }
}

template <class T>
void careful_gradients(const AdditiveTile<T>& t, const RatioTile<T>& side, Features some,
                       const T* grads, const AdditiveGrads<T>& to) {
  for (int64_t f = 0; f < some.count; ++f) {
    const int64_t d = some.at[f];
    Vec<T> vector{};
    int64_t r = t.rows.low;
    for (; r + 2 <= t.rows.high; r += 2) careful_rows<T, 2>(t, side, d, r, grads, to, vector);
    for (; r < t.rows.high; ++r) careful_rows<T, 1>(t, side, d, r, grads, to, vector);
    to.vectors[d] += sum<T>(vector);
  }
}

}  // namespace ogive::OGIVE_ISA
