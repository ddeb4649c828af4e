// Which maps of whole tensors exist, filled by every instruction set's file.
#pragma once

#include <cstdint>
#include <string_view>

namespace ogive {

// x, grad (or null), result, how many numbers, threads
using MapRun = void (*)(const void*, const void*, void*, int64_t, int64_t);
struct MapEntry {
  std::string_view name;
  MapRun value[2], slope[2];  // float, double
};
struct MapTable {
  const MapEntry* entries;
  int count;
};

MapTable baseline_maps();
MapTable avx2_maps();
MapTable avx512_maps();

}  // namespace ogive
