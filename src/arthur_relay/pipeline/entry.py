"""Whether Arthur takes who we are: while it does not, rows wait, and no row is at fault."""

from dataclasses import dataclass

from arthur_relay.row import Attempt, Failure


@dataclass(slots=True)
class Entry:
    """What the last attempts say of it. Pure.

    Attributes:
        refusal: Why we are not taken, in a sentence, or "". Any thread may read it.
    """

    refusal: str = ""

    def note(self, attempt: Attempt) -> bool:
        """Note an attempt. Returns whether it is the first that was refused."""
        if attempt.failure is Failure.UNAUTHORISED:
            is_first = not self.refusal
            self.refusal = attempt.reason
            return is_first
        if attempt.failure is not Failure.UNAVAILABLE:  # of one who is away nobody knows
            self.refusal = ""
        return False
