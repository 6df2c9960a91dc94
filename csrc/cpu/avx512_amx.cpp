#include "amx_tiles.h"
#include "kernels.h"
#include "vec_avx512.h"

const marfast::Kernels marfast::avx512_amx::kernels =
    marfast::kernels_of<marfast::avx512::Vec, marfast::avx512_amx::AmxTiles>();
