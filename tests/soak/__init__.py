"""A soak: capture at a steady rate while faults come and go and the process is killed."""
