"""Optional native kernels for float32 on the CPU; plain PyTorch computes the same results."""
