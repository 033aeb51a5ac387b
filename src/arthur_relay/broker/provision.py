"""Makes the streams and consumers that the broker lacks, and compares those that it has."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.nats.connection import NO_JETSTREAM
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.broker.topology import (
    CONSUMER_SETTINGS,
    consumer_config,
    consumers,
    differences,
    letters_stream,
    rows_stream,
    shared_stream,
    stream_config,
    stream_settings,
)
from arthur_relay.errors import ConfigurationError
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

DEAD_LETTER_BYTES: Final[int] = RelaySettings.model_fields["dead_letter_bytes"].default

OLDEST_SERVER: Final = (2, 14)


@dataclass(frozen=True, slots=True)
class Missing:
    """A stream or a consumer that the broker should have.

    Attributes:
        what: It, for people.
        question: What asks the broker for it.
        config: What its configuration has to be.
        settings: The variables that some of that comes from.
    """

    what: str
    question: str
    config: dict[str, object]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Review:
    """How the broker compares with what it should be.

    Attributes:
        missing: What it does not have.
        differences: In what the rest differs, for people.
    """

    missing: tuple[Missing, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Provision:
    """What a fleet needs at its broker.

    Attributes:
        connection: The connection to the broker.
        products: The products whose rows go through this fleet.
        dead_letter_bytes: The size of the stream of dead letters.
    """

    connection: Connection
    products: Sequence[Product]
    dead_letter_bytes: int = DEAD_LETTER_BYTES

    async def prepare(self) -> None:
        """Make or compare the streams and consumers.

        Raises:
            BrokerAwayError: The broker can't be asked now.
            ConfigurationError: The server is too old or has no JetStream, or something differs from
                what it should be, or is missing and must not be made.
        """
        review = await self.review()
        if review.differences:
            raise ConfigurationError(
                f"The broker is not as it should be: {'; '.join(review.differences)}. Correct it"
                " there, or the settings here."
            )
        if review.missing and not self.connection.settings.create:
            raise ConfigurationError(
                f"The broker has no {review.missing[0].what}, and {BROKER_PREFIX}CREATE is false:"
                " make it, or let us."
            )
        for each in review.missing:
            await self._create(each)

    async def review(self) -> Review:
        """Compare the server, the streams and the consumers with what they should be.

        Changes nothing. Raises what `prepare` does for the server itself.
        """
        version = self.connection.server_version
        if version and version < OLDEST_SERVER:
            wanted = ".".join(map(str, OLDEST_SERVER))
            raise ConfigurationError(
                f"The broker's version is {self.connection.server}; it has to be {wanted} or newer."
            )
        await self._ask_account()
        missing: list[Missing] = []
        differs: dict[str, list[str]] = {}
        for each in self._wanted():
            found = await self.connection.ask_api(each.question)
            if found is None:
                missing.append(each)
            elif text := "; ".join(differences(each.config, found["config"], each.settings)):
                differs.setdefault(text, []).append(each.what)
        return Review(
            tuple(missing), tuple(f"{', '.join(whose)}: {text}" for text, whose in differs.items())
        )

    async def _ask_account(self) -> None:
        """Ask whether there is JetStream for us.

        Raises:
            BrokerAwayError: It can't be asked now.
            ConfigurationError: There is not.
        """
        try:
            await self.connection.ask_api("INFO")
        except BrokerAwayError:
            # A server without JetStream may be part of a cluster that has it, and this one is not.
            if self.connection.is_connected and not self.connection.has_jetstream:
                raise ConfigurationError(f"{NO_JETSTREAM}.") from None
            raise

    def _wanted(self) -> Iterator[Missing]:
        """Yield what the broker should have, in the order in which it is made."""
        settings = self.connection.settings
        for plan in (
            rows_stream(settings),
            shared_stream(settings),
            letters_stream(settings, self.dead_letter_bytes),
        ):
            what, question = f"stream {plan.name}", f"STREAM.INFO.{plan.name}"
            yield Missing(what, question, stream_config(plan), stream_settings(plan))
        for product in self.products:
            for each in consumers(settings, product):
                question = f"CONSUMER.INFO.{settings.stream}.{each.name}"
                config = consumer_config(each)
                yield Missing(f"consumer {each.name}", question, config, CONSUMER_SETTINGS)

    async def _create(self, missing: Missing) -> None:
        """Make a stream or a consumer.

        Raises:
            BrokerAwayError: It can't be made now.
            ConfigurationError: The broker refuses it.
        """
        config, stream = missing.config, self.connection.settings.stream
        if "durable_name" in config:
            body: dict[str, Any] = {"stream_name": stream, "config": config, "action": "create"}
            question = (
                f"CONSUMER.CREATE.{stream}.{config['durable_name']}.{config['filter_subject']}"
            )
        else:
            body, question = config, f"STREAM.CREATE.{config['name']}"
        try:
            await self.connection.ask_api(question, body)
        except ConfigurationError as error:
            found = await self.connection.ask_api(missing.question)
            if found is not None and not differences(
                missing.config, found["config"], missing.settings
            ):
                return  # another daemon has made it meanwhile
            raise ConfigurationError(
                f"The broker refuses to make the {missing.what}: {error}"
            ) from None
        logger.info("made the %s", missing.what)
