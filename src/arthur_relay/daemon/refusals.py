"""Why a request with rows is refused as a whole."""

from __future__ import annotations


class RefusedError(Exception):
    """A request can't be taken; the text says why, and quotes nothing of its body.

    Attributes:
        status: The HTTP status of the answer.
        retry_after_seconds: When the client should send it again, or None if it never should.
    """

    def __init__(self, status: int, sentence: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class NotRowsError(RefusedError):
    """The body can't be split into rows."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)


class TooManyRowsError(RefusedError):
    """There are more rows, or they take more bytes, than a request may have."""

    def __init__(self, sentence: str) -> None:
        super().__init__(413, sentence)


class PutOffError(RefusedError):
    """The rows are not held now."""

    def __init__(self, sentence: str, retry_after_seconds: int) -> None:
        super().__init__(503, sentence, retry_after_seconds)
