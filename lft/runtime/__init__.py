"""The running process: device, memory and progress."""
