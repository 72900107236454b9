#include "mulshift/kernels.h"

extern "C" int32_t mulshift_abi_version(void) { return MULSHIFT_ABI_VERSION; }
