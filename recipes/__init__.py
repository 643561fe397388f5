"""Experiments: one folder each, run as modules from the root of a checkout."""
