"""What `fuse-kernels` is made of: channels-last twins, packed products, epilogues."""
