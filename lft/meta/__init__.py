"""Meta-learning: the inner loop, meta-gradients, the outer loop and evaluation."""
