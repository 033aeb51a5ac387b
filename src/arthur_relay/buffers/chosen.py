"""The buffer that the settings ask for."""

import time
from datetime import UTC, datetime

from arthur_relay.buffers import Buffer
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.settings import Durability, RelaySettings


def chosen_buffer(settings: RelaySettings) -> Buffer:
    """Return a buffer that has not been opened.

    Raises:
        SpoolError: The spool's directory can't be used.
    """
    if settings.spool_dir is None:
        return MemoryBuffer(max_rows=settings.queue_size, max_bytes=settings.buffer_bytes)
    # Loaded here, because SQLite's import takes longer than that of the rest of this package.
    from arthur_relay.buffers.spool import Spool  # noqa: PLC0415 - see above
    from arthur_relay.buffers.spool_directory import SpoolDirectory  # noqa: PLC0415 - see above

    return Spool(
        SpoolDirectory(settings.spool_dir),
        max_bytes=settings.spool_bytes,
        power_safe=settings.durability is Durability.POWER,
        monotonic=time.monotonic,
        utc_now=lambda: datetime.now(UTC),
    )
