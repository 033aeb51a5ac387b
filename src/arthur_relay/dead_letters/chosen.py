"""Where the settings ask for dead letters to be kept."""

from arthur_relay.dead_letters import DeadLetters, DeadLetterStore
from arthur_relay.dead_letters.jsonl import JsonLinesStore
from arthur_relay.dead_letters.memory import MemoryStore
from arthur_relay.settings import RelaySettings


def chosen_keepers(settings: RelaySettings, *, with_damaged: bool = False) -> list[DeadLetterStore]:
    """Return the keepers; what is in the first one is what the relay itself tells of.

    Args:
        settings: Where letters are kept.
        with_damaged: Whether also what is left of letters that can't be read is told of.
    """
    keepers: list[DeadLetterStore] = []
    if settings.spool_dir is None:
        keepers.append(MemoryStore(max_bytes=settings.dead_letter_ring_bytes))
    else:
        # Loaded here, because SQLite's import takes longer than that of the rest of this package.
        from arthur_relay.dead_letters.sqlite import SqliteStore  # noqa: PLC0415 - see above

        keepers.append(SqliteStore(settings.spool_dir, max_bytes=settings.dead_letter_bytes))
    if settings.dead_letter_file is not None:
        keepers.append(
            JsonLinesStore(
                settings.dead_letter_file,
                max_bytes=settings.dead_letter_bytes,
                with_damaged=with_damaged,
            )
        )
    return keepers


def chosen_dead_letters(settings: RelaySettings) -> DeadLetters:
    """Return what the relay hands its dead letters to."""
    return DeadLetters(chosen_keepers(settings), told=settings.on_dead_letter)
