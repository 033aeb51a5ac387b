"""Where rows go. What every destination does: one attempt, and an outcome for every row."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from arthur_relay.encoding.schema import ModelSchema
from arthur_relay.row import Attempt, Batch, RowOwner


class Destination(AbstractAsyncContextManager["Destination", None], Protocol):
    """Delivers batches, one attempt at a time; never retries, never sleeps.

    It is entered by the worker before its first use and left at the end, possibly several times.
    A cancellation leaves it usable.
    """

    @property
    def name(self) -> str:
        """Where rows go, for people: an address without credentials."""
        ...

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        """Ask for a model.

        Raises:
            CredentialsError: The destination refused who we are.
            ModelError: There is no such model, or it is not an LLM.
            ConfigurationError: The destination refused the question for another reason, and asking
                again can't help.
            UnreachableError: The destination could not be asked; later it may.
        """
        ...

    async def deliver(self, batch: Batch) -> Attempt:
        """Try once to deliver a batch. Failures are in the result; never raises them."""
        ...


@runtime_checkable
class HasOwner(Protocol):
    """A destination that says more of whose the rows are than where they go."""

    @property
    def owner(self) -> RowOwner:
        """Whose the rows are, as far as is known by now. Any thread."""
        ...

    async def learn_owner(self) -> None:
        """Ask the destination, so that all of it is known.

        Raises:
            RelayError: It could not be asked, or refused to say.
        """
        ...
