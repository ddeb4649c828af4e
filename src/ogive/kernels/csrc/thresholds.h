// Thresholds of weight functions that give low scores exactly nothing: sparsemax and entmax15.
//
// Newton's method from below never passes the threshold and drops scores on the way; it is then
// computed from those that are left: the same number as by sorting.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.h"

namespace ogive::OGIVE_ISA {

// w = max(s − τ, 0).
struct SparsemaxShape {
  static constexpr double factor = 1;  // of the scores before the threshold
  static constexpr bool squares = false;

  // The threshold of z[0, n), all above top − 1 = −1; z is used up.
  template <class T>
  static double threshold(T* z, int64_t n) {
    for (;;) {
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += z[k];
      const double found = (sum - 1) / double(n);
      const int64_t left = std::remove_if(z, z + n, [&](T x) { return x <= found; }) - z;
      if (left == n || left == 0) return found;
      n = left;
    }
  }
  template <class T>
  static Vec<T> weight(Vec<T> above) {
    return above;
  }
  template <class T>
  static Vec<T> share(Vec<T> above) {
    return above > T(0) ? splat<T>(1) : Vec<T>{};
  }
};

// w = max(s/2 − τ, 0)².
struct Entmax15Shape {
  static constexpr double factor = 0.5;
  static constexpr bool squares = true;

  template <class T>
  static double threshold(T* z, int64_t n) {
    double found = -1;
    for (int step = 0; step < 60; ++step) {
      double first = 0, second = 0;
      for (int64_t k = 0; k < n; ++k) {
        const double above = z[k] - found;
        first += above;
        second += above * above;
      }
      const double next = found + (second - 1) / (2 * first);
      const int64_t left = std::remove_if(z, z + n, [&](T x) { return x <= next; }) - z;
      if (left == 0 || (left == n && std::abs(next - found) < 1e-9)) break;
      n = left;
      found = next;
    }
    double mean = 0, spread = 0;
    for (int64_t k = 0; k < n; ++k) mean += z[k];
    mean /= double(n);
    for (int64_t k = 0; k < n; ++k) spread += (z[k] - mean) * (z[k] - mean);
    return mean - std::sqrt(std::max(0.0, 1 - spread) / double(n));
  }
  template <class T>
  static Vec<T> weight(Vec<T> above) {
    return above * above;
  }
  template <class T>
  static Vec<T> share(Vec<T> above) {
    return above;
  }
};

}  // namespace ogive::OGIVE_ISA
