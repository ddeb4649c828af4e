// What edge_binding.cpp adds to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace ogive {

void bind_edges(nanobind::module_& m);

}  // namespace ogive
