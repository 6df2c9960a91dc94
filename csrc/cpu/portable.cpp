#include "kernels.h"
#include "vec_portable.h"

const marfast::Kernels marfast::portable::kernels = marfast::kernels_of<marfast::portable::Vec>();
