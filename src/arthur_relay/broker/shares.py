"""The share of each model of what waits in the broker. Pure.

A model that floods must not fill the broker: then rows of all models would be refused. So while the
broker is more than half full, a model that has more than its share of it is refused, alone.

The broker itself can only count messages (`max_msgs_per_subject`). That would refuse a model whose
clients send one row at a time while another has two hundred times its bytes in as many messages, so
it is not used. The unit here is bytes. Each subject ends with the size of its messages as a power
of two (`Packet.subject`), and the broker counts the messages of each subject: this gives the bytes
of a model within a third, whoever published them, and also to a gateway that has just started. What
all models have together is known exactly, and corrects the estimate.

Between two answers of the broker, a gateway adds what it has published itself. All gateways
together may exceed a share by what they take in a second.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FULLNESS: Final = 0.5
"""How full the broker is before shares matter: a single model may have all of the first half."""

_MIDDLE: Final = 0.75
"""The middle of the sizes that are written as one power of two, as a part of that power."""


@dataclass(slots=True, eq=False)
class Shares:
    """Knows how much of the broker each model takes. For one loop.

    Attributes:
        limit_bytes: What all models may take.
        share: What one of them may take of it.
    """

    limit_bytes: int
    share: float
    _all_bytes: int = field(default=0, init=False)
    _of_model: Mapping[str, float] = field(default_factory=dict, init=False)
    _since: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def matter(self) -> bool:
        """Whether the broker is so full that a model can have too much."""
        return self._all_bytes + self._since.total() > FULLNESS * self.limit_bytes

    def take(self, all_bytes: int, messages: Mapping[str, int]) -> None:
        """Take an answer of the broker.

        Args:
            all_bytes: What all messages take.
            messages: The number of messages by subject; none while shares do not matter.
        """
        found: Counter[str] = Counter()
        for subject, count in messages.items():
            *_, token, power = subject.split(".")
            if power.isdecimal():
                found[token] += round(count * _MIDDLE * (1 << min(int(power), 64)))
        scale = all_bytes / max(1, found.total())
        self._of_model = {token: size * scale for token, size in found.items()}
        self._all_bytes = all_bytes
        self._since.clear()

    def published(self, token: str, size: int) -> None:
        """Count what this gateway has published for a model."""
        self._since[token] += size

    def is_over(self, token: str) -> bool:
        """Return whether a model has more than its share, and has to wait until it has less."""
        return (
            self.matter
            and self._of_model.get(token, 0.0) + self._since[token] > self.share * self.limit_bytes
        )
