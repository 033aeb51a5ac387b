"""Tests of the command `arthur-relay`."""
