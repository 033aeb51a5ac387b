"""Differences and limits of the operating system, of Python and of terminals."""
