"""The event that the worker's loop waits for when it has nothing to do."""

import anyio


class WakeUp:
    """Wakes the worker's loop. Loop's thread only; other threads go by `Runtime.wake`."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def reset(self) -> None:
        """Forget all earlier wake-ups. Needs a running loop."""
        self._event = anyio.Event()

    def wake(self) -> None:
        """Have the loop take another turn. Does nothing before the first `reset`."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until there has been a wake-up since the last `reset`."""
        assert self._event is not None, "reset comes first"
        await self._event.wait()
