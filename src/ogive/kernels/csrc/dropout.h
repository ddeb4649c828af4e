// Dropout by counting: the same splitmix64 chain over (seed, b, h, i, j) as kernels/dropout.py.
#pragma once

#include <cmath>
#include <cstdint>

#include "problem.h"

namespace ogive::OGIVE_ISA {

inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline uint64_t counted(uint64_t counter, int64_t place) {
  return mixed(counter + uint64_t(place + 1) * 0x9E3779B97F4A7C15ull);
}

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

// Multiplies a row of weights by 0 or 1 / (1 − p).
template <class T>
void drop_row(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n, T* weights) {
  const Coin coin(p);
  const uint64_t row = row_counter(p, b, h, i);
  for (int64_t k = 0; k < n; ++k) weights[k] *= T(coin(counted(row, j0 + k)));
}

template <class T>
const T* stay_of_query(const Problem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n,
                       T* stay) {
  const Coin coin(p);
  const uint64_t row = row_counter(p, b, h, i);
  for (int64_t k = 0; k < n; ++k) stay[k] = T(coin(counted(row, j0 + k)));
  return stay;
}

template <class T>
const T* stay_of_key(const Problem& p, int64_t b, int64_t h, int64_t j, int64_t i0, int64_t n,
                     T* stay) {
  const Coin coin(p);
  const uint64_t head = counted(counted(uint64_t(p.seed), b), h);
  for (int64_t k = 0; k < n; ++k) stay[k] = T(coin(counted(counted(head, i0 + k), j)));
  return stay;
}

}  // namespace ogive::OGIVE_ISA
