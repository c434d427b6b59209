"""Kernels: one folder a format, in it the faces (*.py) beside their bodies (.c, .cu). Loaded only by load_kernels()."""
