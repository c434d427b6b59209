"""Kernels for the condensed format: faces (*.py) beside their bodies."""
