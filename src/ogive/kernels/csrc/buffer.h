// Memory of one thread, aligned for vectors, that grows and is never cleared.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace ogive::OGIVE_ISA {

template <class T>
class Buffer {
 public:
  T* need(int64_t n) {
    if (n > size_) {
      data_.reset(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})));
      size_ = n;
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

}  // namespace ogive::OGIVE_ISA
