"""What a destination asks for with `Retry-After`: seconds or a date, and possibly absurd."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_seconds(header: str | None, *, now: datetime, maximum: float) -> float | None:
    """Read a `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date.

    Args:
        header: The header's value, or None when there was none.
        now: The wall clock, timezone-aware.
        maximum: Longer waits are cut to this; an absurd header must not stop delivery for ever.

    Returns:
        Seconds to wait, 0..maximum, or None when there is none or it is nonsense.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # A number of any length is allowed; a float takes it without an error up to 308 digits.
        return min(float(text[:300]), maximum)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), maximum)
