"""The process: device, memory and progress."""
