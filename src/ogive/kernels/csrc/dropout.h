// Dropout by counting: the same chain over (seed, b, h, i, j) as kernels/dropout.py. Steps of
// splitmix64 lead to a row; the last, from a row to its places, takes words of 32 bits, which vectors
// multiply at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "problem.h"
#include "simd.h"

namespace ogive::OGIVE_ISA {

inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline uint64_t counted(uint64_t counter, int64_t place) {
  return mixed(counter + uint64_t(place + 1) * 0x9E3779B97F4A7C15ull);
}

// 24 bits for a place of a row, from the row's counter and (place + 1) · kStep.
constexpr uint32_t kStep = 0x9E3779B9u;
template <class Words>
Words bits_of(Words low, Words high, Words place) {
  Words x = low + place;
  x = (x ^ (x >> 16)) * 0x7FEB352Du + high;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return (x ^ (x >> 16)) >> 8;
}

inline uint32_t threshold_of(double dropout) { return uint32_t(std::nearbyint(dropout * 16777216.0)); }

// One place at a time, for edges.
struct Coin {
  uint32_t threshold;
  double factor;

  explicit Coin(double dropout) : threshold(threshold_of(dropout)), factor(1 / (1 - dropout)) {}
  double operator()(uint64_t row, int64_t place) const {
    const uint32_t at = uint32_t(place + 1) * kStep;
    return bits_of(uint32_t(row), uint32_t(row >> 32), at) >= threshold ? factor : 0;
  }
};

inline uint64_t row_counter(const Problem& p, int64_t b, int64_t h, int64_t i) {
  return counted(counted(counted(uint64_t(p.seed), b), h), i);
}

// The counters of many rows, by halves.
struct RowCounters {
  const uint32_t *low, *high;
};

// A vector of places at a time, and what their weights are multiplied by: 0 or 1 / (1 − p).
template <class T>
struct Coins {
  static constexpr int W = Lanes<T>::count;
  // GCC sizes a vector by T only where the type of its numbers depends on T as well.
  using Word = std::conditional_t<sizeof(T) != 0, uint32_t, T>;
  using Sign = std::make_signed_t<Word>;
  typedef Word Words __attribute__((vector_size(W * 4), aligned(4), may_alias));
  typedef Sign Signed __attribute__((vector_size(W * 4)));
  Signed threshold;
  Vec<T> factor;

  explicit Coins(double dropout)
      : threshold(Signed{} + int32_t(threshold_of(dropout))),
        factor(splat<T>(T(1 / (1 - dropout)))) {}

  // The factors of a row's places from `first` on.
  Vec<T> operator()(uint64_t row, int64_t first) const {
    Words place;
    for (int l = 0; l < W; ++l) place[l] = uint32_t(first + l + 1) * kStep;
    return kept(bits_of<Words>(Words{} + uint32_t(row), Words{} + uint32_t(row >> 32), place));
  }
  // Those of one place of W rows, from row k on.
  Vec<T> operator()(const RowCounters& rows, int64_t k, int64_t place) const {
    const Words low = *reinterpret_cast<const Words*>(rows.low + k);
    const Words high = *reinterpret_cast<const Words*>(rows.high + k);
    return kept(bits_of<Words>(low, high, Words{} + uint32_t(place + 1) * kStep));
  }

 private:
  Vec<T> kept(Words bits) const {
    const Int<T> mask = __builtin_convertvector((Signed)bits >= threshold, Int<T>);
    return (Vec<T>)(mask & (Int<T>)factor);
  }
};

// The counters of a head's queries, by halves: rows from which one more step leads to each key.
inline void count_queries(const Problem& p, int64_t b, int64_t h, uint32_t* low, uint32_t* high) {
  const uint64_t head = counted(counted(uint64_t(p.seed), b), h);
  for (int64_t i = 0; i < p.queries; ++i) {
    const uint64_t row = counted(head, i);
    low[i] = uint32_t(row);
    high[i] = uint32_t(row >> 32);
  }
}

// The factors of n weights, with room for whole vectors: of a query's keys from j0 on, or of what
// many queries give to key j.
template <class T>
const T* stay_of_query(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n,
                       T* stay) {
  const Coins<T> coins(p.dropout);
  const uint64_t row = row_counter(p, b, h, i);
  for (int64_t k = 0; k < n; k += Lanes<T>::count) store<T>(stay + k, coins(row, j0 + k));
  return stay;
}
template <class T>
const T* stay_of_key(const Problem& p, const RowCounters& queries, int64_t j, int64_t n, T* stay) {
  const Coins<T> coins(p.dropout);
  for (int64_t k = 0; k < n; k += Lanes<T>::count) store<T>(stay + k, coins(queries, k, j));
  return stay;
}

// Multiplies n weights of a query, those of keys j0 on and room for whole vectors, by their factors.
template <class T>
void drop_row(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n, T* weights) {
  const Coins<T> coins(p.dropout);
  const uint64_t row = row_counter(p, b, h, i);
  for (int64_t k = 0; k < n; k += Lanes<T>::count)
    store<T>(weights + k, load<T>(weights + k) * coins(row, j0 + k));
}

}  // namespace ogive::OGIVE_ISA
