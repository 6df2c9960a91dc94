#pragma once

// Marks arithmetic that host and device share. The host's compilers see nothing.

#ifdef __CUDACC__
#define MARFAST_HD __host__ __device__
#else
#define MARFAST_HD
#endif
