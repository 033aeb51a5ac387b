"""Whether Arthur takes who we are: while it does not, rows wait, and no row is at fault."""

from dataclasses import dataclass

from arthur_relay.row import Attempt, Failure


@dataclass(slots=True)
class Authorization:
    """What the last attempts say of it. Pure.

    Attributes:
        refusal: Why we are not taken, in a sentence, or "". Any thread may read it.
        is_unknown: Whether that is so for all models, and not only for that of the last rows.
    """

    refusal: str = ""
    is_unknown: bool = False

    def note(self, attempt: Attempt) -> bool:
        """Note an attempt. Returns whether it is the first since which we are not known."""
        if attempt.failure is Failure.UNAVAILABLE:  # of one who is away nobody knows
            return False
        was_unknown, self.is_unknown = self.is_unknown, attempt.failure is Failure.UNAUTHORISED
        is_refused = self.is_unknown or attempt.failure is Failure.FORBIDDEN
        self.refusal = attempt.reason if is_refused else ""
        return self.is_unknown and not was_unknown
