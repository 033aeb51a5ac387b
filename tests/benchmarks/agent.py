"""An agent as applications have one: a graph in which a model calls two tools, then answers.

It is LangGraph's, without what LangGraph would run in threads of its own: all that a handler does
is done on the thread that calls the agent, whose CPU is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph

from tests.benchmarks import texts
from tests.benchmarks.chat_model import GENERATION_INFO, MODEL_NAME, RESPONSE_METADATA, usage_of

MODEL_CALLS = 3
TOOL_CALLS = 2
SPANS = 1 + 3 * MODEL_CALLS + 2 * TOOL_CALLS
"""The graph; for each model call its node, the model and the choice of what follows; for each
tool its node and the tool."""

_INSTRUCTION_CHARACTERS = 800
_QUESTION_CHARACTERS = 120
_DOCUMENT_CHARACTERS = 1_000
_ANSWER_CHARACTERS = 400
_TOOLS = ("search", "open_page")


class ScriptedChat(BaseChatModel):
    """Calls one tool after the other, then answers: by the tools' messages that it is given."""

    answer: str

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answered = sum(isinstance(message, ToolMessage) for message in messages)
        calls: list[Any] = []
        if answered < TOOL_CALLS:
            arguments = {"query": "asynchronous buffered relay", "limit": 3}
            calls = [{"name": _TOOLS[answered], "args": arguments, "id": f"call-{answered}"}]
        message = AIMessage(
            content="" if calls else self.answer,
            tool_calls=calls,
            response_metadata=dict(RESPONSE_METADATA),
            usage_metadata=usage_of(240, 40),
        )
        generation = ChatGeneration(message=message, generation_info=dict(GENERATION_INFO))
        return ChatResult(generations=[generation], llm_output={"model_name": MODEL_NAME})

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools], **kwargs)

    @property
    def _llm_type(self) -> str:
        return "scripted-chat"


def question() -> dict[str, Any]:
    """What the agent is given."""
    return {"messages": [HumanMessage(content=texts.text(3, _QUESTION_CHARACTERS))]}


def agent(*, is_async: bool) -> Any:
    """The agent: of coroutines for `ainvoke`, else of functions for `invoke`."""
    tools = {name: _tool(name, seed) for seed, name in enumerate(_TOOLS, start=4)}
    instruction = SystemMessage(content=texts.text(1, _INSTRUCTION_CHARACTERS))
    model = ScriptedChat(answer=texts.text(2, _ANSWER_CHARACTERS)).bind_tools([*tools.values()])

    def call_model(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [model.invoke([instruction, *state["messages"]], config)]}

    async def acall_model(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([instruction, *state["messages"]], config)]}

    def call_tools(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        calls = _calls(state)
        return {"messages": [tools[each["name"]].invoke(each, config) for each in calls]}

    async def acall_tools(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        calls = _calls(state)
        return {"messages": [await tools[each["name"]].ainvoke(each, config) for each in calls]}

    def what_follows(state: MessagesState) -> str:
        return "tools" if _calls(state) else END

    async def awhat_follows(state: MessagesState) -> str:
        return what_follows(state)

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", acall_model if is_async else call_model)
    graph.add_node("tools", acall_tools if is_async else call_tools)
    graph.add_edge(START, "model")
    next_step = awhat_follows if is_async else what_follows
    graph.add_conditional_edges("model", next_step, ["tools", END])
    graph.add_edge("tools", "model")
    return graph.compile()


def _calls(state: MessagesState) -> list[Any]:
    last = state["messages"][-1]
    return [{**call, "type": "tool_call"} for call in getattr(last, "tool_calls", ())]


def _tool(name: str, seed: int) -> BaseTool:
    document = texts.text(seed, _DOCUMENT_CHARACTERS)

    def find(query: str, limit: int) -> str:
        return document

    async def afind(query: str, limit: int) -> str:
        return document

    return StructuredTool.from_function(
        func=find, coroutine=afind, name=name, description="Finds what is known of something."
    )
