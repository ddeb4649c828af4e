"""Kernels with one bug each, and what kills them: `make mutants`."""
