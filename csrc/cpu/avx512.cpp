#include "kernels.h"
#include "vec_avx512.h"

const marfast::Kernels marfast::avx512::kernels = marfast::kernels_of<marfast::avx512::Vec>();
