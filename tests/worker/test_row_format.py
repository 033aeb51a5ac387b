"""A destination that wants rows of its own form gets them; any other gets Arthur Scope's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.destinations import HasRowFormat
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.destinations.scope.encoder import ScopeRowFormat
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.errors import ModelError
from arthur_relay.inference import CapturedInference
from arthur_relay.row import Attempt, Batch, Row
from arthur_relay.testing import LLM_ATTRIBUTES, MemoryDestination
from tests.worker.harness import ScriptedDestination, delivered, harness, rows_of, virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.encoding.omissions import CountsOmissions
    from arthur_relay.encoding.privacy import Privacy
    from arthur_relay.inference import Encodable


@dataclass
class Project:
    """A model of a destination that knows no attributes."""

    model_id: str

    @property
    def types(self) -> Mapping[str, str]:
        return {}

    def to_json(self) -> dict[str, Any]:
        return {"id": self.model_id}


@dataclass
class Spans:
    """Encodes an inference as bytes that are no JSON."""

    schema: Project

    def encode(self, capture: Encodable, epoch: int) -> list[Row]:
        assert isinstance(capture, CapturedInference)
        return [Row(capture.id, self.schema.model_id, b"\xff span", epoch)]

    def shrink(self, row: Row) -> Row | None:
        return None


class SpanFormat:
    def schema_to_text(self, schema: Project) -> str:
        return f'{{"id": "{schema.model_id}"}}'

    def schema_from_text(self, model_id: str, text: str) -> Project | None:
        return Project(model_id)

    def usual_schema(self, model_id: str) -> Project:
        return Project(model_id)

    def encoder(
        self,
        schema: Project,
        *,
        omissions: CountsOmissions,
        privacy: Privacy | None,
    ) -> Spans:
        return Spans(schema)


class Collector(ScriptedDestination):
    row_format = SpanFormat()


@virtual
async def test_a_destination_gets_the_rows_that_it_encodes() -> None:
    bodies: list[bytes] = []

    def keep(batch: Batch, _number: int) -> Attempt:
        bodies.extend(row.body for row in batch.rows)
        return delivered(batch)

    h = harness(Collector(script=keep))
    async with h.running():
        h.capture("a", "b")
        assert await h.flush()
    h.check(delivered=2)
    assert bodies == [b"\xff span"] * 2


@virtual
async def test_so_do_the_letters_of_a_model_that_it_refuses() -> None:
    h = harness(Collector(schema_errors=[ModelError("no such project")]))
    async with h.running():
        h.capture("a")
        assert await h.flush()
    assert [letter.body for _, letter in h.letters.letters()] == [b"\xff span"]


@virtual
async def test_a_destination_without_a_format_gets_the_rows_of_arthur_scope() -> None:
    texts: list[str] = []

    def keep(batch: Batch, _number: int) -> Attempt:
        texts.extend(row["inference_data"]["output_text"] for row in rows_of(batch))
        return delivered(batch)

    assert not isinstance(MemoryDestination(), HasRowFormat)
    h = harness(ScriptedDestination(script=keep))
    async with h.running():
        h.capture("a")
        assert await h.flush()
    assert texts == ["answer"]


def test_arthur_scope_has_its_own() -> None:
    assert isinstance(ScopeDestination.row_format, ScopeRowFormat)


def test_a_kept_model_is_the_same_when_it_is_read() -> None:
    rows = ScopeRowFormat()
    schema = ModelSchema("m", LLM_ATTRIBUTES)
    found = rows.schema_from_text("m", rows.schema_to_text(schema))
    assert found is not None
    assert (found.model_id, found.attributes) == ("m", schema.attributes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"id": "m"}',
        '{"id": "m", "attributes": [{"name": "x"}]}',
        ScopeRowFormat().schema_to_text(ModelSchema("other", LLM_ATTRIBUTES)),
    ],
)
def test_a_text_of_another_destination_is_no_model(text: str) -> None:
    assert ScopeRowFormat().schema_from_text("m", text) is None
