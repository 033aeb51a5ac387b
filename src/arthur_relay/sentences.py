"""The clauses that several parts have to word alike, for logs, errors and `health()`. Pure."""

PREFIX = "ARTHUR_RELAY_"
"""That of the settings' variables; `settings` is not imported here, because it is large."""


def named(setting: str) -> str:
    """Return a relay's setting as a person looks for it: by its name, and by its variable.

    Args:
        setting: The name of a field of `RelaySettings`.
    """
    return f"{setting} (or {PREFIX}{setting.upper()})"


def unreachable(problem: object, url: str = "") -> str:
    """Return the clause that says that no answer came from Arthur, and why.

    Args:
        problem: The reason, a clause.
        url: Arthur's address, where a reader may not know it.
    """
    return f"Arthur can't be reached{f' at {url}' if url else ''}: {problem}"


def answered(said: object, place: str = "", *, who: str = "Arthur") -> str:
    """Return the clause that says that an answer came from Arthur, and which.

    Args:
        said: What came back: a status, and what there is to add.
        place: What was asked, and where; not needed of rows.
        who: The subject.
    """
    return f"{who} answered {said}{f' ({place})' if place else ''}"


def no_answer_within(seconds: float) -> str:
    """Return the clause that says that a request took too long.

    Args:
        seconds: The limit, which is that of the settings.
    """
    return f"no answer within {seconds:g} s; the limit is {named('request_timeout_seconds')}"
