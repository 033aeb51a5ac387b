"""An application that logs to Arthur through the relay of its host: a bot that talks to itself.

Its model costs nothing and needs no account; put your own in its place. Everything about Arthur is
in the environment (ARTHUR_ENDPOINT_URL is the relay's socket), so nothing else changes.
"""

import itertools
import logging
import os
import signal
import threading
from collections.abc import Iterator

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler

QUESTIONS = ["What is the capital of France?", "How high is Mont Blanc?", "Who wrote Faust?"]
ANSWERS = ["Paris.", "4,806 metres.", "Goethe, and Marlowe before him."]


def main() -> None:
    """Ask questions, a second apart, until SIGTERM or SIGINT, or for EXAMPLE_QUESTIONS of them."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    log = logging.getLogger("example")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    pause_seconds = float(os.environ.get("EXAMPLE_PAUSE_SECONDS", "1"))
    questions: Iterator[str] = itertools.cycle(QUESTIONS)
    if limit := os.environ.get("EXAMPLE_QUESTIONS"):
        questions = itertools.islice(questions, int(limit))
    with ArthurCallbackHandler.from_env() as handler:
        model = FakeListChatModel(responses=ANSWERS, callbacks=[handler])
        for question in questions:
            model.invoke(question)
            if ended.wait(pause_seconds):
                break
    # Leaving the block has delivered them: to the relay, which answers once they are on its disk.
    log.info("ends; %s", handler.relay.stats())


if __name__ == "__main__":
    main()
