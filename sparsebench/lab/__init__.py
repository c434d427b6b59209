"""The LAB: builds, checks, times. Everything here may load torch, cupy or a compiler; nothing outside does."""
