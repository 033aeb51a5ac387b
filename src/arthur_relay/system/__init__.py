"""What this operating system, this Python and this terminal have."""
