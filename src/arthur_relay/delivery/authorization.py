"""Whether Arthur accepts our credentials: while it does not, rows wait and are not at fault."""

from dataclasses import dataclass

from arthur_relay.row import Attempt, Failure


@dataclass(slots=True)
class Authorization:
    """What the last attempts say about our access. Pure.

    Attributes:
        refusal: Why access is refused, in a sentence, or "". Any thread may read it.
        is_unknown: Whether it is refused for all models, and not only for that of the last rows.
    """

    refusal: str = ""
    is_unknown: bool = False

    def note(self, attempt: Attempt) -> bool:
        """Take in an attempt. Returns whether it is the first that was refused for all models."""
        if attempt.failure is Failure.UNAVAILABLE:  # which says nothing about it
            return False
        was_unknown, self.is_unknown = self.is_unknown, attempt.failure is Failure.UNAUTHORISED
        is_refused = self.is_unknown or attempt.failure is Failure.FORBIDDEN
        self.refusal = attempt.reason if is_refused else ""
        return self.is_unknown and not was_unknown
