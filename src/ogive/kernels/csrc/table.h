// Which loops exist: one entry for each weight function, filled by every instruction set's file.
#pragma once

#include <string_view>

#include "problem.h"

namespace ogive {

using Run = void (*)(const Problem&);
struct Entry {
  std::string_view name;
  Run forward[2], backward[2];  // float, double
};
struct Table {
  const Entry* entries;
  int count;
};

Table baseline_table();
Table avx2_table();
Table avx512_table();

// Runs chains of multiply-adds on every thread; how many operations that were (peak.cpp).
double baseline_multiply_adds(int64_t steps, int64_t threads);
double avx2_multiply_adds(int64_t steps, int64_t threads);
double avx512_multiply_adds(int64_t steps, int64_t threads);

}  // namespace ogive
