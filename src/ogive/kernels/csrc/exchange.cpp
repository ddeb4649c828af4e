#include "exchange.h"

#include <stdexcept>
#include <string>

namespace nb = nanobind;

namespace ogive {
namespace {

enum Code : uint8_t { kSigned, kUnsigned, kReal, kOpaque, kBfloat, kComplex, kBool };
constexpr int32_t kCpu = 1;

struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t axes;
  DataType type;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct Version {
  uint32_t major, minor;
};

struct Exchange {
  Version version;
  void* older;
  void (*unused[3])();  // what makes tensors and hands them over
  int (*tensor_from_object)(void* object, Tensor* out);
  void (*stream)();
};
const Exchange* exchange = nullptr;

View from_numbers(nb::tuple numbers) {
  View view;
  view.data = reinterpret_cast<void*>(nb::cast<int64_t>(numbers[0]));
  view.kind = nb::cast<int64_t>(numbers[1]);
  const size_t axes = numbers.size() - 2;
  if (axes > 4) throw std::invalid_argument("a tensor of more than 4 axes");
  for (size_t axis = 0; axis < axes; ++axis)
    view.stride[axis] = nb::cast<int64_t>(numbers[2 + axis]);
  return view;
}

}  // namespace

void use_exchange(nb::capsule capsule) {
  const auto* found = static_cast<const Exchange*>(capsule.data("dlpack_exchange_api"));
  if (!found || found->version.major != 1 || !found->tensor_from_object)
    throw std::invalid_argument("not an exchange of DLPack, version 1");
  exchange = found;
}

bool look(nb::handle object, Seen& seen) {
  Tensor tensor;
  if (!exchange || exchange->tensor_from_object(object.ptr(), &tensor)) {
    PyErr_Clear();
    return false;
  }
  if (tensor.axes > 4) return false;
  bool empty = false;
  for (int axis = 0; axis < tensor.axes; ++axis) empty = empty || !tensor.shape[axis];
  if (!tensor.data && !empty) return false;  // zeros that torch holds nowhere
  const DataType type = tensor.type;
  seen.bits = type.bits;
  seen.real = (type.code == kReal && (type.bits == 16 || type.bits == 32 || type.bits == 64)) ||
              (type.code == kBfloat && type.bits == 16);
  seen.on_cpu = tensor.device.type == kCpu;
  seen.axes = tensor.axes;
  seen.view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  seen.view.kind = type.code == kBfloat ? kBfloat16
                   : type.code == kReal && type.bits == 16 ? kFloat16 : kOwn;
  for (int axis = 0; axis < tensor.axes; ++axis) {
    seen.size[axis] = tensor.shape[axis];
    seen.view.stride[axis] = tensor.shape[axis] == 1 ? 0 : tensor.strides[axis];
  }
  return true;
}

View view_of(nb::handle tensor) {
  if (tensor.is_none()) return {};
  if (nb::isinstance<nb::tuple>(tensor)) return from_numbers(nb::borrow<nb::tuple>(tensor));
  Seen seen;
  if (!look(tensor, seen) || !seen.on_cpu)
    throw std::invalid_argument("the kernels take tensors in memory of a CPU with at most 4 axes");
  return seen.view;
}

}  // namespace ogive
