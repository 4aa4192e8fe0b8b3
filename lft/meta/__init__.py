"""Meta-learning: inner loop, meta-gradients, outer loop and evaluation."""
