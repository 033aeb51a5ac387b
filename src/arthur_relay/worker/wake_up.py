"""What the worker's loop waits for when it has nothing to do."""

import anyio


class WakeUp:
    """Wakes the worker's loop. Loop's thread only; other threads go by `Runtime.wake`."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def reset(self) -> None:
        """Forget the wake-ups so far. A running loop is needed."""
        self._event = anyio.Event()

    def wake(self) -> None:
        """Make the loop look around; nothing before the first `reset`."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait for a wake-up since the last `reset`."""
        assert self._event is not None, "reset comes first"
        await self._event.wait()
