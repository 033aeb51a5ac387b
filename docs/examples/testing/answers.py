"""A small application: it answers questions, and logs what it does to Arthur."""

from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig

from arthur_relay import ArthurCallbackHandler

PROMPT = ChatPromptTemplate.from_messages([("human", "Answer in one sentence: {question}")])


def make_model() -> BaseChatModel:
    """Return a model that needs no key; put your own in its place."""
    return FakeListChatModel(responses=["It is sunny."])


def answer(question: str, handler: ArthurCallbackHandler, user_id: str) -> str:
    """Answer a user's question."""
    chain = PROMPT | make_model()
    config = RunnableConfig(callbacks=[handler], metadata={"user_id": user_id})
    return str(chain.invoke({"question": question}, config).content)
