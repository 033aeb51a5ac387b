"""Environment variables that look like settings but are not: mostly typos."""

from __future__ import annotations

import logging
import re
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from arthur_relay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

logger = logging.getLogger("arthur_relay.settings")

ENVIRONMENT_PREFIX: Final = "ARTHUR_RELAY_"

DAEMON_PREFIX: Final = "ARTHUR_RELAY_DAEMON_"
"""The daemon itself reports which of these are unknown. Applications have them in their environment
too, if one file of variables serves both."""

BROKER_PREFIX: Final = "ARTHUR_RELAY_BROKER_"
"""The daemon reports these too, when it works with a broker."""

PRIVACY: Final = tuple(
    ENVIRONMENT_PREFIX + name
    for name in ("REDACT", "HIDE_INPUTS", "HIDE_OUTPUTS", "MAX_TEXT_BYTES", "SAMPLE_RATE")
)
"""The settings that decide which texts leave the process: a typo would silently send more.

`DISABLED` is not among them: an operator sets it to switch the relay off in an emergency, and an
application that does not start because of a typo would be a worse emergency.
"""

_OF_THE_SDK: Final = (
    "ARTHUR_API_KEY",
    "ARTHUR_ENDPOINT_URL",
    "ARTHUR_LOGIN",
    "ARTHUR_MODEL_ID",
    "ARTHUR_ORGANIZATION_ID",
    "ARTHUR_PASSWORD",
)

_FAMILIES: Final = tuple(f"{name}_" for name in _OF_THE_SDK)
"""Prefixes of an application's own variables, such as `ARTHUR_MODEL_ID_CHAT`."""

_OF_OTHERS: Final = ("ARTHUR_API_HOST", "ARTHUR_BASE_URL", "ARTHUR_CLIENT_ID", "ARTHUR_TASK_ID")
"""Variables of Arthur's other products: never typos, even if a setting has a similar name."""

_OF_KUBERNETES: Final = re.compile(r"ARTHUR_RELAY_(SERVICE_(HOST|PORT)|PORT)(_\w+)?")
"""The variables that Kubernetes sets in every pod if a service is called `arthur-relay`."""

_PREFIXES: Final = ("ARTHUR_", "RELAY_")
"""The beginnings of names in which a part of the prefix is missing."""

_SAME = 0.9
"""The similarity from which one name is a typo of the other, if not even the prefix is right."""

_RELATED: Final = {
    **dict.fromkeys(("REDACTION", "REDACTOR", "REDACTORS", "MASK", "SCRUB"), "REDACT"),
    **dict.fromkeys(("HIDE", "HIDE_PROMPT", "HIDE_PROMPTS", "HIDE_TEXTS"), "HIDE_INPUTS"),
    **dict.fromkeys(("HIDE_ANSWERS", "HIDE_COMPLETIONS"), "HIDE_OUTPUTS"),
    **dict.fromkeys(("SAMPLE", "SAMPLING", "SAMPLING_RATE"), "SAMPLE_RATE"),
}
"""Other words for the settings of privacy; few of them are spelled alike."""

_PRIVATE_WORDS: Final = ("REDACT", "HIDE", "HIDDEN", "MASK", "SCRUB", "ANONYM", "PII")
"""A name with a word that begins so is meant to keep texts private."""

_OF_OUTPUTS: Final = re.compile("OUTPUT|ANSWER|COMPLETION|RESPONSE")

_logged: set[str] = set()
"""Names that this process has logged: settings are read for each handler, and logged once."""


class Unknown(NamedTuple):
    """A variable that looks like a setting but is not."""

    name: str
    nearest: str | None
    """The variable that was probably meant, or None."""

    @property
    def sentence(self) -> str:
        """The sentence that reports it."""
        hint = f": did you mean {self.nearest}?" if self.nearest else "."
        return f"{self.name} is not a setting, and is ignored{hint}"


def unknown_variables(names: Collection[str], settings: tuple[str, ...]) -> Iterator[Unknown]:
    """Yield the names that look like a setting's but are not, sorted, each with the nearest one.

    The nearest one is a setting's variable or one of the SDK's; None when no name is near. If the
    prefix is wrong as well, or a part of it is missing, a name is yielded only if it is very near
    to a known one, or asks for privacy. Case does not matter. Pure.

    Args:
        names: The variables' names.
        settings: The settings' names, in capitals.
    """
    for name in sorted(names):
        upper = name.upper()
        if upper in settings:
            continue
        if upper.startswith(ENVIRONMENT_PREFIX):
            if _OF_KUBERNETES.fullmatch(upper) is None:
                yield Unknown(name, _nearest(upper, settings))
        elif upper.startswith(("ARTHUR", "RELAY_")) or "_RELAY" in upper:
            meant = _with_prefix(upper, settings)
            if meant is not None:
                yield Unknown(name, meant)


def warn_of_unknown(names: Collection[str], settings: tuple[str, ...]) -> None:
    """Log each name that is neither a setting's nor the daemon's, once for each process.

    It is only a warning, because a superfluous variable must not break an application. Never
    raises; any thread.
    """
    # Settings are read for each handler, but the nearest name is looked for only once.
    new = [name for name in names if name not in _logged]
    for unknown in unknown_variables([name for name in new if not _of_daemon(name)], settings):
        _logged.add(unknown.name)
        logger.warning("arthur-relay: %s", unknown.sentence)


def refuse_near_privacy(
    environment: Mapping[str, str], settings: tuple[str, ...], *, given: Collection[str] = ()
) -> None:
    """Refuse a variable that was meant for a setting of privacy: ignoring it would send texts.

    It also refuses such a variable with the daemon's prefix, which has no such settings.

    Args:
        environment: The variables. Empty ones are ignored.
        settings: The settings' names, in capitals.
        given: The variables of settings that code gives, which override the environment.

    Raises:
        SettingsError: There is such a variable; the message names it, and what was meant.
    """
    for unknown in unknown_variables(environment, settings):
        meant = _privacy_of_daemon(unknown.name) if _of_daemon(unknown.name) else unknown.nearest
        if meant in PRIVACY and meant not in given and environment[unknown.name].strip():
            raise SettingsError(
                f"{unknown.name} is not a setting, and what is near it keeps texts private: did you"
                f" mean {meant}? Correct the name, or remove the variable."
            )


def leave_to_command(names: Collection[str]) -> None:
    """Log none of these: a command reports them itself, together with the daemon's."""
    _logged.update(names)


def _of_daemon(name: str) -> bool:
    return name.upper().startswith((DAEMON_PREFIX, BROKER_PREFIX))


def _privacy_of_daemon(name: str) -> str | None:
    """Return the setting of privacy that a variable with the daemon's prefix was meant for.

    The name has to be very near, because an application does not know the daemon's settings.
    """
    rest = name.upper().removeprefix(DAEMON_PREFIX)
    near = (each for each in PRIVACY if _alike(ENVIRONMENT_PREFIX + rest, each))
    return next(near, None) or _private_by_word(rest)


@lru_cache(maxsize=256)
def _nearest(name: str, settings: tuple[str, ...]) -> str | None:
    without_relay = name.replace("RELAY_", "", 1)
    if without_relay in _OF_THE_SDK:
        return without_relay
    # Compared without the common prefix, which would make any two look alike.
    rest = name.removeprefix(ENVIRONMENT_PREFIX)
    if related := _RELATED.get(rest):
        return ENVIRONMENT_PREFIX + related
    known = [setting.removeprefix(ENVIRONMENT_PREFIX) for setting in settings]
    close = get_close_matches(rest.strip("_"), known, n=1)
    found = ENVIRONMENT_PREFIX + close[0] if close else None
    return found if found in PRIVACY else _private_by_word(rest) or found


@lru_cache(maxsize=256)
def _with_prefix(name: str, settings: tuple[str, ...]) -> str | None:
    """Return the variable that a name with a wrong prefix was meant for, or None."""
    if name in _OF_OTHERS or name.startswith(_FAMILIES) or name in _OF_THE_SDK:
        return None
    for each in (*settings, *_OF_THE_SDK):
        if _alike(name, each):
            return each
    prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
    if prefix is None:
        return None
    rest = name.removeprefix(prefix)
    meant = ENVIRONMENT_PREFIX + _RELATED.get(rest, rest)
    if meant not in settings:
        near = (each for each in settings if _alike(rest, each.removeprefix(ENVIRONMENT_PREFIX)))
        meant = next(near, None) or _private_by_word(rest, ("REDACT", "HIDE")) or ""
    if prefix == "RELAY_" and meant.endswith("_SAMPLE_RATE"):
        return None  # other programs of that name have one
    return meant or None


def _private_by_word(rest: str, words: tuple[str, ...] = _PRIVATE_WORDS) -> str | None:
    """Return the setting of privacy that a name without its prefix means by another word."""
    for word in rest.split("_"):
        if word.startswith(words):
            if not word.startswith(("HIDE", "HIDDEN")):
                return ENVIRONMENT_PREFIX + "REDACT"
            which = "HIDE_OUTPUTS" if _OF_OUTPUTS.search(rest) else "HIDE_INPUTS"
            return ENVIRONMENT_PREFIX + which
    return None


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one, other).ratio() >= _SAME
