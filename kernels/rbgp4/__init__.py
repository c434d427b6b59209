"""Kernels for the rbgp4 format: faces (*.py) beside their bodies."""
