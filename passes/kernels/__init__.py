"""What `order-channels` (spaces, pairing) and `fuse-kernels` (twins, packed products, epilogues) are made of."""
