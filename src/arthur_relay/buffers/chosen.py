"""The buffer that the settings ask for."""

from collections.abc import Callable

from arthur_relay.buffers import Buffer
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.row import RowOwner
from arthur_relay.settings import Durability, Overflow, RelaySettings
from arthur_relay.system.clocks import SystemClock


def chosen_buffer(settings: RelaySettings, owner: Callable[[], RowOwner]) -> Buffer:
    """Return a buffer that has not been opened.

    Args:
        settings: The kind and the size.
        owner: Returns who sends its rows, as far as is known.
    """
    if settings.spool_dir is None:
        return _in_memory(settings).as_buffer()
    # Loaded here, because SQLite's import takes longer than that of the rest of this package.
    from arthur_relay.buffers.overflow import OverflowBuffer  # noqa: PLC0415 - see above
    from arthur_relay.buffers.spool.buffer import Spool  # noqa: PLC0415 - see above
    from arthur_relay.buffers.spool.directory import SpoolDirectory  # noqa: PLC0415 - see above

    spool = Spool(
        SpoolDirectory(settings.spool_dir),
        max_bytes=settings.spool_bytes,
        power_safe=settings.durability is Durability.POWER,
        clock=SystemClock(),
        owner=owner,
    )
    return (
        OverflowBuffer(_in_memory(settings), spool).as_buffer()
        if settings.overflow is Overflow.SPILL
        else spool.as_buffer()
    )


def _in_memory(settings: RelaySettings) -> MemoryBuffer:
    return MemoryBuffer(max_rows=settings.queue_size, max_bytes=settings.buffer_bytes)
