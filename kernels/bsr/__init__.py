"""Kernels for the bsr format: faces (*.py) beside their bodies."""
