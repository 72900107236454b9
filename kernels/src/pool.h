#ifndef MULSHIFT_SRC_POOL_H
#define MULSHIFT_SRC_POOL_H

namespace mulshift {

struct PoolKernels {};

}  // namespace mulshift

#endif
