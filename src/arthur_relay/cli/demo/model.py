"""The demo's chat model: answers word by word, at its own pace, on this machine."""

import math
import re
import time
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from arthur_relay.cli.demo.script import answer_to

MODEL_NAME: Final = "demo-model"
_OTHER_WORDS: Final = ("perhaps", "we", "quite", "so", "there", "then", "a", "often")


class DemoChatModel(BaseChatModel):
    """A chat model without a network; its answers carry all that a provider's do.

    They have token usage, a finish reason, and log probabilities in the chat form.

    Attributes:
        delay_seconds: The wait before each token, 0 or more.
    """

    delay_seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "arthur-relay-demo"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain passes it
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, None, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain passes it
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> Iterator[ChatGenerationChunk]:
        tokens = split_tokens(answer_to(str(messages[-1].content)))
        for index, token in enumerate(tokens):
            time.sleep(self.delay_seconds)
            chunk = ChatGenerationChunk(
                message=AIMessageChunk(content=token),
                generation_info={"logprobs": {"content": [_log_probability(token, index)]}},
            )
            if run_manager is not None:
                run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk
        read = sum(len(split_tokens(str(message.content))) for message in messages)
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata={
                    "input_tokens": read,
                    "output_tokens": len(tokens),
                    "total_tokens": read + len(tokens),
                },
            ),
            generation_info={"finish_reason": "stop", "model_name": MODEL_NAME},
        )


def split_tokens(text: str) -> list[str]:
    """Return a text's words, each with the spaces after it; joined they are the text."""
    return re.findall(r"\S+\s*|^\s+", text)


def _log_probability(token: str, index: int) -> dict[str, Any]:
    """Return one token's log probabilities in the chat form: made up, and always the same."""
    draw = crc32(f"{index} {token}".encode("utf-8", "replace"))
    chosen = 0.55 + 0.44 * (draw % 1000) / 1000
    other = _OTHER_WORDS[draw % len(_OTHER_WORDS)]
    candidates = ((token, chosen), (f"{other} ", (1 - chosen) * 0.7))
    return {
        "token": token,
        "bytes": None,
        "logprob": math.log(chosen),
        "top_logprobs": [
            {"token": word, "bytes": None, "logprob": math.log(probability)}
            for word, probability in candidates
        ],
    }
