"""Kernels for the hbs format: faces (*.py) beside their bodies."""
