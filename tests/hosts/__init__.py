"""Forks and hosts."""
