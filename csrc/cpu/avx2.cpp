#include "kernels.h"
#include "vec_avx2.h"

const marfast::Kernels marfast::avx2::kernels = marfast::kernels_of<marfast::avx2::Vec>();
