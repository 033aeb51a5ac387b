"""A chat in the terminal, each answer of which is an inference in Arthur.

For scripts and command-line tools. Run it against a local Arthur, without any key:

    pip install 'arthur-relay[daemon]'
    arthur-relay sandbox     # in another terminal; export here the lines that it prints
    python chat.py           # q ends it
"""

from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import BaseMessage, BaseMessageChunk, HumanMessage

from arthur_relay import ArthurCallbackHandler


def make_llm(handler: ArthurCallbackHandler) -> BaseChatModel:
    """Return a model that logs to Arthur. This one needs no key; put your own in its place."""
    return FakeListChatModel(
        responses=["It is something that is called back.", "It passes on what it gets."],
        callbacks=[handler],
    )


def run(llm: BaseChatModel) -> None:
    """Answer what the user types, with all that was said before, until it is q."""
    history: list[BaseMessage] = []
    while (user_input := input("\n>>> input >>>\n>>>: ")) != "q":
        history.append(HumanMessage(user_input))
        answer: BaseMessageChunk | None = None
        for chunk in llm.stream(history):
            print(chunk.content, end="", flush=True)
            answer = chunk if answer is None else answer + chunk
        assert answer is not None
        history.append(answer)


if __name__ == "__main__":
    with ArthurCallbackHandler.from_env() as handler:  # leaving the block delivers what waits
        run(make_llm(handler))
    print(handler.relay.stats())
