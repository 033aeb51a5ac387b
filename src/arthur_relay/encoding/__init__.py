"""Captured run -> rows: text, likelihoods, usage, schema mapping, JSON. Runs in the worker."""
