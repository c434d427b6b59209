"""Kernels for the nm format: faces (*.py) beside their bodies."""
