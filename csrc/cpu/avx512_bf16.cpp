// The AVX-512 kernels, compiled with the bf16 instructions at hand.

#include "kernels.h"
#include "vec_avx512.h"

const marfast::Kernels marfast::avx512_bf16::kernels = marfast::kernels_of<marfast::avx512::Vec>();
