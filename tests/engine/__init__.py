"""Arthur Engine as a destination: its rows, its client, and the pipeline in front of it."""
