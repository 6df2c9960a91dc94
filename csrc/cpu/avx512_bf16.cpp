#include "bfloat16_dots.h"
#include "kernels.h"
#include "vec_avx512.h"

const marfast::Kernels marfast::avx512_bf16::kernels =
    marfast::kernels_of<marfast::avx512::Vec, marfast::avx512_bf16::BFloat16Dots>();
