"""Tests of the fleet, with real servers of the broker."""
