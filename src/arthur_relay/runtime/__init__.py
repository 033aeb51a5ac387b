"""The worker's thread, its event loop, and the ends of the process."""
