// Tensors of Python as views, through the C interface that torch hands out for this purpose.
//
// The interface is DLPack's (dlpack.h, version 1): plain structures and function pointers, so
// nothing of torch is linked. Where an older torch lacks it, Python passes tuples of numbers.
#pragma once

#include <nanobind/nanobind.h>

#include "problem.h"

namespace ogive {

// The capsule `torch.Tensor.__dlpack_c_exchange_api__`; raises where its version is another.
void use_exchange(nanobind::capsule capsule);

// A tensor as it stands: what its numbers are, and how many axes of which size.
struct Seen {
  View view;              // strides of axes of one element are 0, so that they broadcast
  int64_t axes = 0, size[4] = {1, 1, 1, 1};
  bool real = false;      // float32, float64, bfloat16 or float16
  int64_t bits = 0;
  bool on_cpu = false;
};

// None gives no view. Tuples are (address, kind, stride, …).
View view_of(nanobind::handle tensor);

// Whether `tensor` is one that can be looked at, and has at most four axes.
bool look(nanobind::handle tensor, Seen& seen);

}  // namespace ogive
