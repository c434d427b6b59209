"""Kernels for the dense format: faces (*.py) beside their bodies."""
