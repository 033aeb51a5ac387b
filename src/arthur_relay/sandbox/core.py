"""The core: what the API does with models, inferences and ground truth, apart from HTTP."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.sandbox.models import build_model
from arthur_relay.sandbox.validation import (
    InvalidRowError,
    Schema,
    check_ground_truth,
    check_inference,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arthur_relay.sandbox.auth import Auth
    from arthur_relay.sandbox.engine.core import EngineCore
    from arthur_relay.sandbox.faults import Fault, Faults
    from arthur_relay.sandbox.journal import Journal
    from arthur_relay.sandbox.store import Store, Stored

# The page's list shows the beginning of a text; it asks for the rest when a row is opened.
PREVIEW_CHARACTERS: Final = 600
_ID: Final = "partner_inference_id"
_MESSAGE: Final = re.compile(r"^(?:Human|AI|System|Tool|Function|[A-Z]\w*Message): ", re.MULTILINE)


class NotRowsError(ValueError):
    """A request's body that is not a JSON list."""


@dataclass(frozen=True, slots=True)
class Core:
    """One sandbox's parts, and what it does with rows. Methods block: not for a loop's thread.

    Attributes:
        store: What it remembers.
        auth: Who may call it.
        faults: What goes wrong.
        journal: What was asked of it.
        max_body_bytes: The longest body of rows; None sets no limit.
        loopback_only: Whether the server listens on the loopback interface only.
        engine: What it does as an Arthur Engine.
    """

    store: Store
    auth: Auth
    faults: Faults
    journal: Journal
    max_body_bytes: int | None
    loopback_only: bool
    engine: EngineCore

    def add_model(self, given: Mapping[str, Any], *, model_id: str | None = None) -> dict[str, Any]:
        """Register a model.

        Args:
            given: What the client sent.
            model_id: The id it gets; None makes one.

        Returns:
            The model, complete.

        Raises:
            InvalidModelError: the model lacks something.
            ModelExistsError: its id or partner_model_id is taken.
        """
        model = build_model(
            given,
            model_id=model_id or str(uuid.uuid4()),
            created_at=datetime.now(UTC).isoformat(),
        )
        self.store.add_model(model)
        self.journal.changes.advance()
        return model

    def add_inferences(
        self, model: Mapping[str, Any], body: bytes, row_faults: Sequence[Fault]
    ) -> dict[str, Any]:
        """Store the good rows of a request; the first with an id stays.

        Args:
            model: The model they are for.
            body: The request's body.
            row_faults: Faults that refuse rows.

        Returns:
            The answer: counts, and a result for each row in order.

        Raises:
            NotRowsError: the body is not a JSON list.
        """
        rows = _parse(body)
        schema = Schema.of(model)
        results, good = _check(rows, partial(check_inference, schema), row_faults)
        text_names = _text_names(model)
        new = self.store.add_inferences(
            model["id"],
            [
                (inference_id, rows[index], _search_text(inference_id, rows[index], text_names))
                for index, inference_id in good
            ],
        )
        self.journal.count_rows(
            stored=sum(new), duplicates=len(new) - sum(new), rejected=_rejections(rows, results)
        )
        return _multi_status(results)

    def add_ground_truth(
        self, model: Mapping[str, Any], body: bytes, row_faults: Sequence[Fault]
    ) -> dict[str, Any]:
        """Store ground truth for inferences that are known.

        Args:
            model: The model they are for.
            body: The request's body.
            row_faults: Faults that refuse rows.

        Returns:
            The answer: counts, and a result for each row in order.

        Raises:
            NotRowsError: the body is not a JSON list.
        """
        rows = _parse(body)
        schema = Schema.of(model)
        results, good = _check(rows, partial(check_ground_truth, schema), row_faults)
        known = self.store.add_ground_truth(
            model["id"], [(inference_id, rows[index]) for index, inference_id in good]
        )
        for (index, _), found in zip(good, known, strict=True):
            if not found:
                results[index] = {
                    "message": "no inference has this partner_inference_id",
                    "status": 404,
                }
        self.journal.count_rows(stored=0, duplicates=0, rejected=_rejections(rows, results))
        return _multi_status(results)

    def models(self) -> list[dict[str, Any]]:
        """All models, oldest first, each with the number of its inferences."""
        counts = self.store.counts()
        return [
            {
                "id": model["id"],
                "name": model["display_name"],
                "partner_model_id": model["partner_model_id"],
                "inferences": counts.get(model["id"], 0),
            }
            for model in self.store.models()
        ]

    def state(self) -> dict[str, Any]:
        """The counts that tests and the page read."""
        models = self.models()
        return {
            "inferences": sum(model["inferences"] for model in models),
            "models": models,
            "task_id": self.engine.store.tasks()[0].id,
            **self.engine.store.counts(),
            "faults": [fault.describe() for fault in self.faults.active],
            **self.journal.state(),
        }

    def page(
        self, *, model_id: str | None, search: str, before: int | None, limit: int
    ) -> dict[str, Any]:
        """A page of inferences, newest first, with long texts cut; see `Store.page`.

        Returns:
            `inferences`, and in `next` what to give as `before` for the page after, or None.
        """
        found = self.store.page(model_id=model_id, search=search, before=before, limit=limit + 1)
        names = {model["id"]: _text_names(model) for model in self.store.models()}
        return {
            "inferences": [_summary(each, names[each.model_id]) for each in found[:limit]],
            "next": found[limit - 1].seq if len(found) > limit else None,
        }


def _parse(body: bytes) -> list[Any]:
    try:
        rows = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NotRowsError("the body is not JSON") from None
    if not isinstance(rows, list):
        raise NotRowsError("the body must be a JSON list of rows")
    return rows


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(
    rows: Sequence[Any], check: Callable[[object], str], row_faults: Sequence[Fault]
) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """A result for each row, and the index and id of those that are good."""
    results: list[dict[str, Any]] = []
    good: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        try:
            inference_id = check(row)
        except InvalidRowError as error:
            results.append({"message": str(error), "status": 400})
            continue
        failures = [fault.row_status(index, inference_id) for fault in row_faults]
        status = next((failure for failure in failures if failure is not None), None)
        if status is None:
            results.append({"message": "success", "status": 200})
            good.append((index, inference_id))
        else:
            results.append({"message": "the sandbox was told to fail this row", "status": status})
    return results, good


def _rejections(rows: Sequence[Any], results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the id and the reason of each row that was not taken."""
    return [
        (
            str(row.get("partner_inference_id", "")) if isinstance(row, dict) else "",
            result["message"],
        )
        for row, result in zip(rows, results, strict=True)
        if result["status"] != 200
    ]


def _multi_status(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    success = sum(200 <= result["status"] < 300 for result in results)
    return {
        "counts": {
            "success": success,
            "failure": len(results) - success,
            "total": len(results),
        },
        "results": list(results),
    }


def _text_names(model: Mapping[str, Any]) -> tuple[str, str]:
    """The names of a model's input and output text; empty where it has none."""
    names = {
        stage: next(
            (
                found["name"]
                for found in model["attributes"]
                if found["stage"] == stage and found["value_type"] == "UNSTRUCTURED_TEXT"
            ),
            "",
        )
        for stage in ("PIPELINE_INPUT", "PREDICTED_VALUE")
    }
    return names["PIPELINE_INPUT"], names["PREDICTED_VALUE"]


def _search_text(inference_id: str, row: Mapping[str, Any], names: tuple[str, str]) -> str:
    texts = [row["inference_data"].get(name) or "" for name in names]
    return "\n".join([inference_id, *texts])


def _last_message(text: str) -> str:
    """Return the last message of a conversation, as LangChain writes one, or the text that is none.

    A conversation's rows begin alike, so that their beginnings tell nobody which is which.
    """
    begins = [found.start() for found in _MESSAGE.finditer(text)]
    return f"… {text[begins[-1] :].lstrip()}" if len(begins) > 1 else text


def _calls(given: Any) -> str | None:
    """Return tool calls as people write them, or the text as it is where it is none of ours."""
    if not isinstance(given, str) or not given:
        return None
    try:
        calls = [f"{call['name']}({_arguments(call)})" for call in json.loads(given)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return given[:PREVIEW_CHARACTERS]
    return "→ " + ", ".join(calls)[:PREVIEW_CHARACTERS] if calls else None


def _arguments(call: Mapping[str, Any]) -> str:
    arguments = call.get("args")
    if not isinstance(arguments, dict):
        return "" if arguments is None else str(arguments)
    return ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
    )


def _summary(stored: Stored, names: tuple[str, str]) -> dict[str, Any]:
    data = stored.row["inference_data"]
    fields = (
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "duration",
        "outcome",
        "error",
    )
    texts = [data.get(name) or "" for name in names]
    return {
        "seq": stored.seq,
        "model_id": stored.model_id,
        "names": names,
        "id": stored.row["partner_inference_id"],
        "timestamp": stored.row["inference_timestamp"],
        "received_at": stored.received_at,
        "input": _last_message(texts[0])[:PREVIEW_CHARACTERS],
        "output": texts[1][:PREVIEW_CHARACTERS],
        "tool_calls": _calls(data.get("tool_calls")),
        "ground_truth": stored.row.get("ground_truth_data"),
        **{name: data.get(name) for name in fields},
    }
