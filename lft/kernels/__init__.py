"""Native kernels for float32 on the CPU. They are optional: plain PyTorch computes the same."""
