"""The words for people that depend on a daemon's role: where rows are kept, and by whom."""

from __future__ import annotations

from typing import Final, NamedTuple

from arthur_relay.daemon.settings import RoleName


class RoleWords(NamedTuple):
    """The sentences of one role. Those of the log are formats for `logging`."""

    ready: str
    """Log, after the start: the number of waiting rows, whose, and where they go."""
    stopping: str
    unready: str
    """A title."""
    away: str
    refused: str
    none: str
    """No row has come in so far."""
    well: str


ROLE_WORDS: Final = {
    RoleName.HOST: RoleWords(
        ready="ready: %d rows%s of earlier processes wait in the spool, all go to %s",
        stopping="It takes no more rows. What can't be delivered in time stays in the spool.",
        unready="No rows are taken",
        away="Rows are taken and wait in the spool. They are delivered once Arthur answers.",
        refused="Rows are taken and wait in the spool. Arthur refused who we are: renew the key,"
        " and reload.",
        none="Rows are taken; none has come in so far.",
        well="Rows are taken and delivered.",
    ),
    RoleName.GATEWAY: RoleWords(
        ready="ready: the broker keeps rows%s, and workers deliver them to %s",
        stopping="It takes no more rows. The broker has all that were accepted.",
        unready="No rows are taken",
        away="Rows are taken, and the broker keeps them. New models are not known before Arthur"
        " answers.",
        refused="Rows are taken, and the broker keeps them. Arthur refused who we are: renew the"
        " key, and reload.",
        none="Rows are taken; none has come in so far.",
        well="Rows are taken, and the broker keeps them.",
    ),
    RoleName.WORKER: RoleWords(
        ready="ready: rows%s that wait in the broker go to %s",
        stopping="It fetches no more rows. What can't be delivered in time goes back to the"
        " broker.",
        unready="No rows are fetched",
        away="Rows wait in the broker. They are delivered once Arthur answers.",
        refused="Rows wait in the broker. Arthur refused who we are: renew the key, and reload.",
        none="Rows are fetched; there was none so far.",
        well="Rows are fetched and delivered.",
    ),
}
