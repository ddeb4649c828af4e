// Maps' entries of the Python module: a name, addresses and a count in.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "map_table.h"

namespace nb = nanobind;

namespace ogive {
namespace {

MapTable maps_of(const std::string& isa) {
#ifdef OGIVE_X86
  if (isa == "avx512") return avx512_maps();
  if (isa == "avx2") return avx2_maps();
#endif
  if (isa == "baseline") return baseline_maps();
  throw std::invalid_argument("unknown instruction set " + isa);
}

// grad 0: the value of each number; else its slope times grad.
void map(const std::string& isa, const std::string& name, bool wide, uintptr_t x, uintptr_t grad,
         uintptr_t result, int64_t count, int64_t threads) {
  const MapTable table = maps_of(isa);
  for (int i = 0; i < table.count; ++i) {
    const MapEntry& entry = table.entries[i];
    if (entry.name != name) continue;
    nb::gil_scoped_release release;
    return (grad ? entry.slope : entry.value)[wide](
        reinterpret_cast<const void*>(x), reinterpret_cast<const void*>(grad),
        reinterpret_cast<void*>(result), count, threads);
  }
  throw std::invalid_argument("no compiled map " + name);
}

std::vector<std::string> map_names() {
  std::vector<std::string> found;
  const MapTable table = baseline_maps();
  for (int i = 0; i < table.count; ++i) found.emplace_back(table.entries[i].name);
  return found;
}

}  // namespace

void bind_maps(nb::module_& m) {
  m.def("map", &map);
  m.def("map_names", &map_names);
}

}  // namespace ogive
