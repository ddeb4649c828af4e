// What a thread of a team throws, thrown again when the team has ended: an exception that leaves a
// parallel region ends the process.
#pragma once

#include <atomic>
#include <exception>

namespace ogive::OGIVE_ISA {

class Team {
 public:
  // Does nothing once any thread has thrown; loops that are shared go on to their end.
  template <class Work>
  void run(const Work& work) {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      work();
    } catch (...) {
      if (!failed_.exchange(true)) thrown_ = std::current_exception();
    }
  }
  // After the region.
  void end() const {
    if (thrown_) std::rethrow_exception(thrown_);
  }

 private:
  std::atomic<bool> failed_{false};
  std::exception_ptr thrown_;
};

}  // namespace ogive::OGIVE_ISA
