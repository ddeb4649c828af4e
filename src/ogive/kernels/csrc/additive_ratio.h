// tanh and sigmoid of a sum, from exponentials of its two terms that are computed once a row.
//
// With u = e^q and B = e^−k, sigmoid(q + k) = u / (u + B). With u = e^|2q| and B = e^∓2k (− where
// q > 0, + elsewhere),
//
//     tanh(q + k) = ± ((u − 1) − (B − 1)) / (u + B),
//
// both differences computed as such: it keeps all digits of small numbers, which 1 − 2 / (1 + e^2q
// e^2k) does not, and since u ≥ 1, large opposite terms do no harm. Slopes are a number times
// u B / (u + B)².
//
// Four features share a division, so exponentials must not be too large. A pair of a query's and a
// key's number of which one is out of reach goes by the curve. That is decided for each such pair by
// itself: what a pair gives depends on no number that it may not see.
#pragma once

#include <cmath>

#include "additive.h"

namespace ogive::OGIVE_ISA {

// Numbers of the vector up to here; larger ones go by the curve.
template <class T>
constexpr T kRatioVector = sizeof(T) == 4 ? T(256) : T(1e30);

// `reach` is how far |factor · x| may go: four sums of exponentials, times each other and a number
// of the vector, stay in range, and u B / (u + B)² times a small gradient stays normal. Sums of
// tanh's are never below 1; four of sigmoid's, all small, may meet a small number of the vector.
struct TanhRatio {
  using Curve = Tanh;
  static constexpr int factor = 2, slope = 4;
  static constexpr bool differs = true;  // numerators have a part of the key's, and two signs
  template <class T>
  static constexpr T reach = sizeof(T) == 4 ? 18 : 150;
};

struct SigmoidRatio {
  using Curve = Sigmoid;
  static constexpr int factor = 1, slope = 1;
  static constexpr bool differs = false;
  template <class T>
  static constexpr T reach = sizeof(T) == 4 ? 12 : 100;
};

// Tables of a feature of a span, a row of kSpan each: B, and where numerators differ, the key's part
// of them, that part times the vector's number, and all three again for the other sign.
template <class Ratio>
constexpr int64_t kRatioTable = (Ratio::differs ? 6 : 1) * kSpan;

template <class T>
inline Vec<T> within(Vec<T> x, T most) {
  return larger<T>(splat<T>(-most), -larger<T>(splat<T>(-most), -x));
}

template <class T>
inline void difference_tables(Vec<T> x, T sign, T weight, T* table) {
  const Growth<T> grown = growth<T>(x);
  const Vec<T> part = sign * grown.less;
  store<T>(table, grown.whole);
  store<T>(table + kSpan, part);
  store<T>(table + 2 * kSpan, weight * part);
}

// Fills a feature's tables for some keys and says how large |factor · k| is.
template <class T, class Ratio>
T ratio_keys(const T* feature, int64_t keys, T weight, T* table) {
  Vec<T> most{};
  for (int64_t j = 0; j < keys; j += Lanes<T>::count) {
    const Vec<T> raw = T(Ratio::factor) * load<T>(feature + j);
    most = larger<T>(absolute<T>(raw), most);
    const Vec<T> x = within<T>(raw, Ratio::template reach<T>);
    if constexpr (Ratio::differs) {
      difference_tables<T>(-x, 1, weight, table + j);
      difference_tables<T>(x, -1, weight, table + 3 * kSpan + j);
    } else {
      store<T>(table + j, growth<T>(-x).whole);
    }
  }
  return maximum<T>(most);
}

// One feature of a block of queries: f = (top − the key's part) / (u + B), with top = ±(u − 1), or
// top / (u + B) with top = u.
template <class T>
struct RatioQueries {
  T u[kBlock], top[kBlock], weighted[kBlock];  // the last: top times the vector's number
  int64_t table[kBlock];  // where the tables of the row's sign start
  T most;                 // |factor · q|
};

template <class T, class Ratio>
void ratio_queries(const T* feature, T weight, RatioQueries<T>& to) {
  Vec<T> most{};
  for (int64_t r = 0; r < kBlock; r += Lanes<T>::count) {
    const Vec<T> raw = T(Ratio::factor) * load<T>(feature + r), size = absolute<T>(raw);
    most = larger<T>(size, most);
    const Vec<T> x = within<T>(Ratio::differs ? size : raw, Ratio::template reach<T>);
    const Growth<T> grown = growth<T>(x);
    store<T>(to.u + r, grown.whole);
    const Vec<T> top = Ratio::differs ? with_sign_of<T>(grown.less, raw) : grown.whole;
    store<T>(to.top + r, top);
    store<T>(to.weighted + r, weight * top);
  }
  for (int64_t r = 0; r < kBlock; ++r)
    to.table[r] = Ratio::differs && std::signbit(feature[r]) ? 3 * kSpan : 0;
  to.most = maximum<T>(most);
}

// A tile's tables.
template <class T, class Ratio>
struct RatioTile {
  const T* tables;                 // [d][stride]
  int64_t stride;
  const T* most;                   // [d], of the keys
  const RatioQueries<T>* queries;  // [d]

  bool far(int64_t d) const {
    return !(larger_of(most[d], queries[d].most) <= Ratio::template reach<T>);
  }

 private:
  static T larger_of(T a, T b) { return a > b ? a : b; }
};

// Lanes in which a pair of numbers is out of reach.
template <class T, class Ratio>
struct Beyond {
  Vec<T> only(Vec<T> x, T q, Vec<T> k) const { return pick(q, k) ? x : Vec<T>{}; }
  Vec<T> rest(Vec<T> x, T q, Vec<T> k) const { return pick(q, k) ? Vec<T>{} : x; }

 private:
  static Int<T> pick(T q, Vec<T> k) {
    const Vec<T> size = larger<T>(absolute<T>(k), splat<T>(std::abs(q)));
    return T(Ratio::factor) * size > Ratio::template reach<T>;
  }
};

template <class T>
struct RatioSide {  // a feature against a query; its numerator is times the vector's number
  T u, top, query;
  const T *table, *keys;
};

template <class T>
struct RatioFeature {  // of a tile
  const RatioQueries<T>* block;
  const T *queries, *tables, *keys;

  RatioSide<T> against(int64_t r) const {
    return {block->u[r], block->weighted[r], queries[r], tables + block->table[r], keys};
  }
};

template <class T>
constexpr T kNoKeys[3 * kSpan] = {};

template <class T>
constexpr RatioQueries<T> kNoQueries = [] {
  RatioQueries<T> all{};
  for (T& u : all.u) u = 1;
  return all;
}();

// Feature f of the list. After the last one comes a stand-in that adds nothing.
template <class T, class Ratio>
inline RatioFeature<T> ratio_feature(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side,
                                     Features some, int64_t f) {
  if (f >= some.count) return {&kNoQueries<T>, kNoKeys<T>, kNoKeys<T>, kNoKeys<T>};
  const int64_t d = some.at[f];
  return {side.queries + d, t.queries + d * kBlock, side.tables + d * side.stride,
          t.features + d * kSpan};
}

// One feature's numerator; Checked gives 0 where the pair is out of reach.
template <class T, class Ratio, bool Checked>
inline Vec<T> ratio_over(const RatioSide<T>& a, int64_t j) {
  Vec<T> over = splat<T>(a.top);
  if constexpr (Ratio::differs) over -= load<T>(a.table + 2 * kSpan + j);
  if constexpr (Checked) over = Beyond<T, Ratio>().rest(over, a.query, load<T>(a.keys + j));
  return over;
}

// Floats of AVX-512 take an estimate of 14 bits and a step of Newton's: dividing such a vector takes
// as long as twenty additions on some processors.
template <class T>
constexpr bool kEstimates = sizeof(T) == 4 && OGIVE_VECTOR_BYTES == 64;

// 1 / x within 1 ulp, for sizes from 2^−126 to 2^126.
template <class T>
inline Vec<T> reciprocal(Vec<T> x) {
#if OGIVE_VECTOR_BYTES == 64
  if constexpr (kEstimates<T>) {
    const Vec<T> near = (Vec<T>)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
    return near + near * (T(1) - x * near);
  }
#endif
  return T(1) / x;
}

template <class T>
inline Vec<T> quotient(Vec<T> a, Vec<T> b) {
  if constexpr (kEstimates<T>) return a * reciprocal<T>(b);
  return a / b;
}

template <class T>
struct Fraction {
  Vec<T> over, under;

  Fraction operator+(const Fraction& b) const {
    return {over * b.under + b.over * under, under * b.under};
  }
};

// A feature's share of a row's scores.
template <class T, class Ratio, bool Checked>
inline Fraction<T> ratio_of(const RatioSide<T>& a, int64_t j) {
  return {ratio_over<T, Ratio, Checked>(a, j), a.u + load<T>(a.table + j)};
}

// Four features of a row.
template <class T, class Ratio, bool Checked>
inline void ratio_row(Span columns, const RatioFeature<T>* features, int64_t r, T* to) {
  const RatioSide<T> a = features[0].against(r), b = features[1].against(r);
  const RatioSide<T> c = features[2].against(r), d = features[3].against(r);
  for (int64_t j = columns.low; j < columns.high; j += Lanes<T>::count) {
    const Fraction<T> all =
        (ratio_of<T, Ratio, Checked>(a, j) + ratio_of<T, Ratio, Checked>(b, j)) +
        (ratio_of<T, Ratio, Checked>(c, j) + ratio_of<T, Ratio, Checked>(d, j));
    store<T>(to + j, load<T>(to + j) + quotient<T>(all.over, all.under));
  }
}

template <class T, class Ratio>
void ratio_scores(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side, Features some,
                  T* scores) {
  for (int64_t f = 0; f < some.count; f += 4) {
    bool far = false;
    RatioFeature<T> four[4];
    for (int64_t k = 0; k < 4; ++k) {
      four[k] = ratio_feature<T, Ratio>(t, side, some, f + k);
      far = far || (f + k < some.count && side.far(some.at[f + k]));
    }
    for (int64_t r = t.rows.low; r < t.rows.high; ++r)
      if (far)
        ratio_row<T, Ratio, true>(t.columns, four, r, scores + r * kSpan);
      else
        ratio_row<T, Ratio, false>(t.columns, four, r, scores + r * kSpan);
  }
}

// What one feature of one row needs for its gradients.
template <class T>
struct RatioBack {
  T u, numerator, vector, top, query;
  const T* table;
  Vec<T> back;
};

template <class T, class Ratio>
inline RatioBack<T> ratio_back(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side, int64_t d,
                               int64_t r) {
  const RatioQueries<T>& q = side.queries[d];
  return {q.u[r],
          T(Ratio::slope) * q.u[r],
          t.vectors[d],
          q.top[r],
          t.queries[d * kBlock + r],
          side.tables + d * side.stride + q.table[r],
          Vec<T>{}};
}

// 1 / x of one vector or of two, in one division where they are dear. Sharing it costs two roundings,
// which a step of Newton's takes back.
template <class T, int Count>
inline void reciprocals(Vec<T>* x) {
  if constexpr (Count == 1 || kEstimates<T>) {
    for (int i = 0; i < Count; ++i) x[i] = reciprocal<T>(x[i]);
  } else {
    const Vec<T> both = T(1) / (x[0] * x[1]), first = both * x[1], second = both * x[0];
    x[0] = first + first * (T(1) - x[0] * first);
    x[1] = second + second * (T(1) - x[1] * second);
  }
}

// A feature's slope from its value: 1 − f² has more digits than the quotient as long as f is small.
template <class T, class Ratio>
inline Vec<T> ratio_slope(const RatioBack<T>& a, Vec<T> b, Vec<T> under, Vec<T> value) {
  const Vec<T> slope = (b * under) * (a.numerator * under);
  if constexpr (!Ratio::differs) return slope;
  const Vec<T> square = value * value;
  return square < T(0.25) ? T(1) - square : slope;
}

// Gradients of some features (one or two) from some rows from r on; `vectors` gets Σ g f.
template <class T, class Ratio, int Count, int Rows, bool Checked>
inline void ratio_rows(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side,
                       const int64_t* features, int64_t r, const T* grads, const AdditiveGrads<T>& to, Vec<T>* vectors) {
  RatioBack<T> parts[Rows][Count];  // copies, so that no store may touch them
  Vec<T> values[Count];
  T* keys[Count];
  const T *own[Count], *g = grads + r * kSpan;
#pragma GCC unroll 2
  for (int f = 0; f < Count; ++f) {
    values[f] = vectors[f];
    keys[f] = to.features + features[f] * kSpan;
    own[f] = t.features + features[f] * kSpan;
#pragma GCC unroll 2
    for (int k = 0; k < Rows; ++k)
      parts[k][f] = ratio_back<T, Ratio>(t, side, features[f], r + k);
  }
  const int64_t end = t.columns.high;
  for (int64_t j = t.columns.low; j < end; j += Lanes<T>::count) {
    Vec<T> sums[Count];
#pragma GCC unroll 2
    for (int f = 0; f < Count; ++f) sums[f] = load<T>(keys[f] + j);
#pragma GCC unroll 2
    for (int k = 0; k < Rows; ++k) {
      Vec<T> under[Count];
#pragma GCC unroll 2
      for (int f = 0; f < Count; ++f) under[f] = parts[k][f].u + load<T>(parts[k][f].table + j);
      reciprocals<T, Count>(under);
#pragma GCC unroll 2
      for (int f = 0; f < Count; ++f) {
        RatioBack<T>& a = parts[k][f];
        Vec<T> h = load<T>(g + k * kSpan + j), over = splat<T>(a.top);
        if constexpr (Checked) h = Beyond<T, Ratio>().rest(h, a.query, load<T>(own[f] + j));
        if constexpr (Ratio::differs) over -= load<T>(a.table + kSpan + j);
        const Vec<T> value = over * under[f];
        const Vec<T> p = h * ratio_slope<T, Ratio>(a, load<T>(a.table + j), under[f], value);
        a.back += p;
        sums[f] += a.vector * p;
        values[f] += h * value;
      }
    }
#pragma GCC unroll 2
    for (int f = 0; f < Count; ++f) store<T>(keys[f] + j, sums[f]);
  }
#pragma GCC unroll 2
  for (int f = 0; f < Count; ++f) {
    vectors[f] = values[f];
#pragma GCC unroll 2
    for (int k = 0; k < Rows; ++k)
      to.queries[(r + k) * t.width + features[f]] += parts[k][f].vector * sum<T>(parts[k][f].back);
  }
}

template <class T, class Ratio, int Count, bool Checked>
void ratio_features(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side,
                    const int64_t* features, const T* grads, const AdditiveGrads<T>& to) {
  Vec<T> vectors[Count] = {};
  int64_t r = t.rows.low;
  for (; r + 2 <= t.rows.high; r += 2)
    ratio_rows<T, Ratio, Count, 2, Checked>(t, side, features, r, grads, to, vectors);
  for (; r < t.rows.high; ++r)
    ratio_rows<T, Ratio, Count, 1, Checked>(t, side, features, r, grads, to, vectors);
  for (int f = 0; f < Count; ++f) to.vectors[features[f]] += sum<T>(vectors[f]);
}

template <class T, class Ratio>
void ratio_gradients(const AdditiveTile<T>& t, const RatioTile<T, Ratio>& side, Features some,
                     const T* grads, const AdditiveGrads<T>& to) {
  int64_t f = 0;
  for (; f + 2 <= some.count; f += 2) {
    if (side.far(some.at[f]) || side.far(some.at[f + 1]))
      ratio_features<T, Ratio, 2, true>(t, side, some.at + f, grads, to);
    else
      ratio_features<T, Ratio, 2, false>(t, side, some.at + f, grads, to);
  }
  if (f == some.count) return;
  if (side.far(some.at[f]))
    ratio_features<T, Ratio, 1, true>(t, side, some.at + f, grads, to);
  else
    ratio_features<T, Ratio, 1, false>(t, side, some.at + f, grads, to);
}

}  // namespace ogive::OGIVE_ISA
