"""Captures LangChain's events on the caller's thread, and hands them to the worker."""
