"""The relay of a host, which serves Arthur's own API: its intake, its access, its operation."""
