#pragma once

// float32 from and to bfloat16 and float16, to nearest even, by integer arithmetic: the same bits
// on every host and device. In an unnamed namespace: files with different flags must not share
// code.

#include <string.h>

#include <cstdint>

#include "marfast/host_device.h"
#include "marfast/types.h"

namespace marfast {
namespace {

MARFAST_HD inline uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

MARFAST_HD inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

MARFAST_HD inline float to_float(float value) { return value; }

MARFAST_HD inline float to_float(bfloat16 value) { return from_bits(uint32_t{value.bits} << 16); }

MARFAST_HD inline float to_float(float16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t exponent = (value.bits >> 10) & 31u, fraction = value.bits & 0x3ffu;
  if (exponent == 0) return from_bits(sign | to_bits(static_cast<float>(fraction) * 0x1p-24f));
  if (exponent < 31) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  return from_bits(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
}

MARFAST_HD inline void from_float(float value, float* out) { *out = value; }

MARFAST_HD inline void from_float(float value, bfloat16* out) {
  const uint32_t bits = to_bits(value);
  const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : nearest_even);
}

MARFAST_HD inline void from_float(float value, float16* out) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  uint32_t half;
  if (size > 0x7f800000u) {  // NaN
    half = 0x7e00u | ((size >> 13) & 0x3ffu);
  } else if (size >= 0x477ff000u) {  // rounds to 65536 or more: infinity
    half = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2^-14: an integer of 2^-24, rounded by the addition
    half = to_bits(from_bits(size) * 0x1p24f + 0x1p23f) - 0x4b000000u;
  } else {
    half = ((size + 0xfffu + ((size >> 13) & 1u)) >> 13) - (112u << 10);
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

}  // namespace
}  // namespace marfast
