"""Kernels for the csr format: faces (*.py) beside their bodies."""
