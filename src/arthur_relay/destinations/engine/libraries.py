"""Whether the libraries are installed that make spans."""

from __future__ import annotations

from importlib.util import find_spec

from arthur_relay.errors import ConfigurationError

_NEEDED = ("opentelemetry.proto", "openinference.semconv")


def check_libraries() -> None:
    """Check that all are there, without importing them, which takes 0.1 s.

    Raises:
        ConfigurationError: One is not there.
    """
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        raise ConfigurationError(
            f"Spans for Arthur Engine need the package {' and '.join(missing)}: pip install"
            " 'arthur-relay[engine]'."
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False
