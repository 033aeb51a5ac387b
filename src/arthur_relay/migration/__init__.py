"""Finds what a team changes in its code when it moves from the old handler, and changes it."""
