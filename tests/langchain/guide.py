"""The guide that users follow, as a program: chats about what it is asked, and remembers it all."""

# ruff: noqa: T201 - quoted as it was given
import sys

from langchain_core.callbacks import StreamingStdOutCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI

from arthur_relay import ArthurCallbackHandler

model_id, url, login, *questions = sys.argv[1:]

chat = ChatOpenAI(
    streaming=True,
    temperature=0.1,
    callbacks=[
        StreamingStdOutCallbackHandler(),
        ArthurCallbackHandler.from_credentials(model_id, arthur_url=url, arthur_login=login),
    ],
)

history: list[BaseMessage] = []
for question in questions:
    history.append(HumanMessage(content=question))
    history.append(chat.invoke(history))
    print()
