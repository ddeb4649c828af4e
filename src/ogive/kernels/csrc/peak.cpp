// The most that a core computes: multiply-adds on registers alone, so that benchmarks can say what
// share of it a kernel reaches. Compiled once for each instruction set.
#include "simd.h"
#include "table.h"

#define OGIVE_JOIN_(a, b) a##b
#define OGIVE_JOIN(a, b) OGIVE_JOIN_(a, b)

namespace ogive {
namespace {

namespace here = OGIVE_ISA;

// Twelve chains hide the latency of two multiply-adds a cycle, and fit in sixteen registers.
constexpr int kChains = 12;

float chains(int64_t steps) {
  using Vec = here::Vec<float>;
  Vec sums[kChains], x = here::splat<float>(1.0f - 1e-7f), y = here::splat<float>(1e-7f);
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sums[c] = here::splat<float>(float(c + 1));
  for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * x + y;
  Vec all{};
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) all += sums[c];
  return here::sum<float>(all);
}

}  // namespace

double OGIVE_JOIN(OGIVE_ISA, _multiply_adds)(int64_t steps, int64_t threads) {
  float kept = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(+ : kept)
  kept += chains(steps);
  volatile float used = kept;
  (void)used;
  return 2.0 * double(steps) * double(threads) * kChains * here::Lanes<float>::count;
}

}  // namespace ogive
