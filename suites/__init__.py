"""Suites and networks that ship with the package (YAML)."""
