"""Where rows are sent: a destination makes one attempt, and returns an outcome for each row."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from arthur_relay.encoding.model import Schema
from arthur_relay.encoding.omissions import CountsOmissions
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.encoding.product import Product
from arthur_relay.inference import Encodable
from arthur_relay.row import Attempt, Batch, Row, RowOwner

SchemaT = TypeVar("SchemaT", bound=Schema)


class Destination(AbstractAsyncContextManager["Destination", None], Protocol):
    """Delivers batches, one attempt at a time; never retries, never sleeps.

    The worker enters it before its first use and leaves it at the end, possibly several times.
    A cancellation leaves it usable.
    """

    @property
    def name(self) -> str:
        """The address that rows are sent to, for people; without credentials."""
        ...

    async def fetch_schema(self, model_id: str) -> Schema:
        """Ask for a model's schema.

        Raises:
            CredentialsError: The destination refused the credentials.
            ModelError: There is no such model, or it is not an LLM.
            ConfigurationError: The destination refused the request for another reason, and a
                retry can't help.
            UnreachableError: The destination did not answer; a later attempt may succeed.
        """
        ...

    async def deliver(self, batch: Batch) -> Attempt:
        """Try once to deliver a batch. Never raises: a failure is in the result."""
        ...


class RowEncoder(Protocol):
    """Encodes the captures of one model. Worker's thread only; no I/O, no clock."""

    @property
    def schema(self) -> Schema:
        """The model."""
        ...

    def encode(self, capture: Encodable, epoch: int) -> list[Row]:
        """Return the rows of a capture, in order. Empty when nothing of it can be sent."""
        ...

    def shrink(self, row: Row) -> Row | None:
        """Return a smaller form of a row that was too large, or None when there is none."""
        ...


class RowFormat(Protocol[SchemaT]):
    """How a destination wants its rows. Pure."""

    def schema_to_text(self, schema: SchemaT) -> str:
        """Return a text to store a schema as: a JSON object, with the model's id as `id`."""
        ...

    def schema_from_text(self, model_id: str, text: str) -> SchemaT | None:
        """Return the schema that a text stores, or None when it is not of that model."""
        ...

    def usual_schema(self, model_id: str) -> SchemaT:
        """Return a schema with the usual fields, for a model that nothing else is known of."""
        ...

    def encoder(
        self, schema: SchemaT, *, omissions: CountsOmissions, privacy: Privacy | None
    ) -> RowEncoder:
        """Return the encoder of a model.

        Args:
            schema: The model.
            omissions: Counts each value that can't be sent.
            privacy: What may be sent of each text; everything when None.
        """
        ...


@runtime_checkable
class ReducesRows(Protocol):
    """A row format with a form of a row that the destination takes whatever is in it."""

    def reduced(self, row: Row, omissions: CountsOmissions) -> Row | None:
        """Return that form of a row that was refused for its content, or None.

        None: it is in that form already, or there is none.

        Args:
            row: The row.
            omissions: Counts each value that is left out.
        """
        ...


@runtime_checkable
class HasRowFormat(Protocol):
    """A destination with a row format of its own; any other gets Arthur Scope's rows."""

    @property
    def row_format(self) -> RowFormat[Any]:
        """How the destination wants its rows. Worker's thread."""
        ...


@runtime_checkable
class TakesTraces(Protocol):
    """A destination that takes whole traces: its rows are spans, of runs of every kind.

    They can be encoded with the usual schema before the destination has been asked for the model:
    what its answer changes in them, `deliver` changes.
    """

    takes_traces: bool


def product_of(destination: Destination) -> Product:
    """Return the product that a destination is of."""
    return Product.ENGINE if isinstance(destination, TakesTraces) else Product.SCOPE


@runtime_checkable
class HasOwner(Protocol):
    """A destination that knows more about the owner of its rows than its own name."""

    @property
    def owner(self) -> RowOwner:
        """The owner of the rows, as far as it is known by now. Any thread."""
        ...

    async def learn_owner(self) -> None:
        """Ask the destination for the part of the owner that is not known yet.

        Raises:
            RelayError: The destination could not be asked, or refused to answer.
        """
        ...


@runtime_checkable
class FindsStored(Protocol):
    """A destination that stores a row again when it is sent again, and says what it has."""

    async def find_stored(self, batch: Batch) -> Attempt | None:
        """Ask which rows are there already; sends none of them. Never raises.

        Returns:
            DELIVERED for each that is there, and RETRY for each that is not; a failure when no
            answer came; None when the credentials don't permit the question.
        """
        ...
