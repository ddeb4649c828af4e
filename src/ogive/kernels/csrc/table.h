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

}  // namespace ogive
