#pragma once

// A SimpleMLPAdaLN's tensors by name, from pointers in the order of its state_dict, on the host or
// on the device: marfast/reference/head_weights.py's HeadWeights.

#include <cstdint>

#include "marfast/host_device.h"

namespace marfast {

struct Layer {
  const void* weight;
  const void* bias;
};

class HeadWeights {
 public:
  MARFAST_HD HeadWeights(const void* const* tensors, int64_t depth)
      : tensors_(tensors), depth_(depth) {}

  MARFAST_HD static constexpr int64_t count(int64_t depth) { return kOthers + kBlock * depth; }

  MARFAST_HD Layer time_in() const { return at(0); }
  MARFAST_HD Layer time_out() const { return at(2); }
  MARFAST_HD Layer condition() const { return at(4); }
  MARFAST_HD Layer input() const { return at(6); }
  MARFAST_HD Layer norm(int64_t block) const { return at(8 + kBlock * block); }
  MARFAST_HD Layer in(int64_t block) const { return at(10 + kBlock * block); }
  MARFAST_HD Layer out(int64_t block) const { return at(12 + kBlock * block); }
  // A block's shift, scale and gate.
  MARFAST_HD Layer modulation(int64_t block) const { return at(14 + kBlock * block); }
  MARFAST_HD Layer final() const { return at(8 + kBlock * depth_); }
  // The final layer's shift and scale.
  MARFAST_HD Layer final_modulation() const { return at(10 + kBlock * depth_); }

 private:
  static constexpr int64_t kBlock = 8, kOthers = 12;  // tensors of a block, and of all else

  MARFAST_HD Layer at(int64_t place) const { return {tensors_[place], tensors_[place + 1]}; }

  const void* const* tensors_;
  int64_t depth_;
};

}  // namespace marfast
