// Dropout by counting: the same splitmix64 chain over (seed, b, h, i, j) as kernels/dropout.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

// One counter at a time, for edges.
struct Coin {
  uint64_t threshold;
  double factor;

  explicit Coin(const Problem& p)
      : threshold(uint64_t(std::nearbyint(p.dropout * 16777216.0))),
        factor(1 / (1 - p.dropout)) {}
  double operator()(uint64_t counter) const {
    return (counter >> 40) >= threshold ? factor : 0;
  }
};

inline uint64_t row_counter(const Problem& p, int64_t b, int64_t h, int64_t i) {
  return counted(counted(counted(uint64_t(p.seed), b), h), i);
}

// Vectors of counters, and what a weight is multiplied by for each: 0 or 1 / (1 − p).
template <class T>
struct Coins {
  static constexpr int kLanes = OGIVE_VECTOR_BYTES / 8;
  typedef uint64_t Counters __attribute__((vector_size(OGIVE_VECTOR_BYTES)));
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Bits Some __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(T)), may_alias));
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;

  int64_t threshold;
  Bits factor;

  explicit Coins(const Problem& p) : threshold(int64_t(std::nearbyint(p.dropout * 16777216.0))) {
    const T whole = T(1 / (1 - p.dropout));
    std::memcpy(&factor, &whole, sizeof(T));
  }
  static Counters mixed_all(Counters x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
  }
  // Those of `counter`'s places [first, first + n); room for whole vectors is the caller's.
  void toss(uint64_t counter, int64_t first, int64_t n, T* stay) const {
    Counters at;
    for (int l = 0; l < kLanes; ++l) at[l] = counter + uint64_t(first + l + 1) * kGolden;
    for (int64_t k = 0; k < n; k += kLanes, at += kLanes * kGolden)
      store_kept(mixed_all(at), stay + k);
  }
  // Those of one place of n counters, which come in whole vectors.
  void toss(const uint64_t* counters, int64_t place, int64_t n, T* stay) const {
    for (int64_t k = 0; k < n; k += kLanes) {
      Counters at;
      std::memcpy(&at, counters + k, sizeof(at));
      store_kept(mixed_all(at + uint64_t(place + 1) * kGolden), stay + k);
    }
  }

 private:
  typedef int64_t Signed __attribute__((vector_size(OGIVE_VECTOR_BYTES)));
  void store_kept(Counters x, T* stay) const {
    const auto kept = __builtin_convertvector((Signed)(x >> 40) >= threshold, Some);
    *reinterpret_cast<Some*>(stay) = kept & factor;
  }
};

// The factors of a row's weights from key j0 on.
template <class T>
const T* stay_of_query(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n,
                       T* stay) {
  Coins<T>(p).toss(row_counter(p, b, h, i), j0, n, stay);
  return stay;
}

// The counters of a head's queries, from which one more step leads to each key's.
inline void count_queries(const Problem& p, int64_t b, int64_t h, uint64_t* counters) {
  const uint64_t head = counted(counted(uint64_t(p.seed), b), h);
  for (int64_t i = 0; i < p.queries; ++i) counters[i] = counted(head, i);
}

// Multiplies a row of weights, at most a tile of them, by their factors.
template <class T>
void drop_row(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n, T* weights) {
  constexpr int64_t most = 128;
  T stay[most];
  for (int64_t k = 0; k < n; k += most) {
    const int64_t some = std::min(most, n - k);
    stay_of_query<T>(p, b, h, i, j0 + k, some, stay);
    for (int64_t l = 0; l < some; ++l) weights[k + l] *= stay[l];
  }
}

}  // namespace ogive::OGIVE_ISA
