"""The connection to NATS: the one place that knows the client library.

No type and no error of the library leaves this package. What it raises becomes one of three errors:
the broker is away, it is full, or something about it has to be changed by a person. All of it
belongs to one event loop.
"""

from __future__ import annotations

from arthur_relay.errors import ConfigurationError

try:
    import nats.aio.client  # noqa: F401 - so that whoever needs it learns here that it is missing
except ImportError:
    raise ConfigurationError(
        "A gateway and a worker need the client of the broker: pip install 'arthur-relay[nats]'."
    ) from None
