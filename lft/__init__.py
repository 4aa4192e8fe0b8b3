"""Reference reproduction of "Learned Fine-Tuner for Incongruous Few-Shot Learning"."""

__version__ = "0.1.0"
