"""Whatever the provider, the row says what the model said: langchain-core's own classes alone.

They run with the lowest langchain-core that is allowed, with 1.2.11, and with the newest.
What the real clients hand over is in `tests/providers/`.
"""
