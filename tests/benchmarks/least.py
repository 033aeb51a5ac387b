"""The least that could deliver: what Python and its lock leave to any handler, as a yardstick.

No tool to use. There are no bounds, no accounting, no schema, no retry, no verdicts, no redaction,
and what the application changes later is sent changed; the lock is held for a whole batch. What a
figure demands that not even this reaches, no handler reaches that encodes in the same process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import orjson
from langchain_core.callbacks import BaseCallbackHandler

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from arthur_relay import Inference

IN_FLIGHT: Final = 4
"""Requests at once: the relay's default."""

BATCH_SIZE: Final = 500
"""Records in a request: the relay's default."""

_ROLES: Final = {"human": "Human", "ai": "AI", "system": "System"}
_LOOK_SECONDS: Final = 0.005


class LeastSender:
    """A deque, and a thread that encodes what is in it and posts it.

    Args:
        url: Where the records go.
        encode: Makes the JSON of a record; called in the thread.
        batch_size: Records in a request.

    Attributes:
        append: Takes a record: `deque.append` itself.
    """

    def __init__(
        self, url: str, encode: Callable[[Any], bytes], *, batch_size: int = BATCH_SIZE
    ) -> None:
        self._url = url
        self._encode = encode
        self._batch_size = batch_size
        self._waiting: deque[Any] = deque()
        self.append = self._waiting.append
        self._ready = threading.Event()
        self._flushed = threading.Event()
        self._flushing = False
        self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)
        self._thread.start()
        self._ready.wait()  # importing and making the client is none of the sending

    def flush(self, timeout: float) -> None:
        """Wait until all is posted."""
        self._flushed.clear()
        self._flushing = True
        self._flushed.wait(timeout)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._thread.join()

    async def _work(self) -> None:
        import httpx

        headers = {"Content-Type": "application/json", "Authorization": "key"}
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
            self._ready.set()
            posts: set[asyncio.Task[None]] = set()

            async def post(records: list[Any]) -> None:
                body = b"[" + b",".join(map(self._encode, records)) + b"]"
                answer = await client.post(self._url, content=body, headers=headers)
                assert answer.status_code == 207

            waiting = self._waiting
            while not self._ended:
                flushing = self._flushing
                while len(posts) < IN_FLIGHT and (
                    len(waiting) >= self._batch_size or (flushing and waiting)
                ):
                    count = min(self._batch_size, len(waiting))
                    records = [waiting.popleft() for _ in range(count)]
                    posts.add(asyncio.create_task(post(records)))
                if posts:
                    done, posts = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
                    for each in done:
                        each.result()
                elif flushing:
                    self._flushing = False
                    self._flushed.set()
                else:
                    # Looking now and then is cheaper for the caller than waking someone.
                    await asyncio.sleep(_LOOK_SECONDS)


class LeastHandler(BaseCallbackHandler):
    """Keeps references, and hands them over at the end; everything else is the sender's.

    Args:
        sender: Encodes by `encoded_run`.
    """

    run_inline = True
    # Plain attributes: the base class's properties cost a call for each event.
    ignore_llm = ignore_chat_model = False
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(self, sender: LeastSender) -> None:
        super().__init__()
        self.sender = sender
        self._append = sender.append
        self._open: dict[UUID, tuple[float, list[BaseMessage]]] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        self._open[run_id] = (perf_counter(), messages[0])

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        pass

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        started_at, messages = self._open.pop(run_id)
        self._append((run_id, messages, response, perf_counter() - started_at))


def encoded_run(run: tuple[UUID, list[BaseMessage], LLMResult, float]) -> bytes:
    """What a `LeastHandler` has kept of a run, as JSON."""
    run_id, messages, response, duration = run
    return orjson.dumps(
        {
            "inference_timestamp": datetime.now(UTC),
            "partner_inference_id": str(run_id),
            "inference_data": {
                "input_text": "\n".join([f"{_ROLES[m.type]}: {m.content}" for m in messages]),
                "output_text": response.generations[0][0].text,
                "duration": duration,
            },
        }
    )


def encoded_inference(inference: Inference) -> bytes:
    """An inference as JSON."""
    return orjson.dumps(
        {
            "inference_timestamp": datetime.now(UTC),
            "partner_inference_id": inference.inference_id,
            "inference_data": {
                "input_text": inference.input_text,
                "output_text": inference.output_text,
                "duration": inference.duration,
            },
        }
    )
