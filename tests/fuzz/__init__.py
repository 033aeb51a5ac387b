"""Fuzz targets of what strangers send: rows (`intake`), spans (`traces`), requests (`edge`).

The ordinary tests run a fixed number of cases with a fixed seed. `python -m tests.fuzz --seconds N`
goes on for as long as it is told, with a seed of its own, which it prints.
"""
