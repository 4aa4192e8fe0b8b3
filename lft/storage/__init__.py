"""Files: atomic writes, checksummed tensors and checkpoints."""
