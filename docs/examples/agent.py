"""A LangGraph agent with a tool; each request is one trace in Arthur Engine.

For agents and graphs. Run it against a local Arthur Engine, without any key:

    pip install 'arthur-relay[daemon,engine]' langgraph
    arthur-relay sandbox     # in another terminal; export here what its last line says
    python agent.py
"""

import uuid

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from arthur_relay import ArthurCallbackHandler


@tool
def weather(city: str) -> str:
    """Say how the weather is in a city."""
    return f"It is sunny in {city}."


def make_model() -> BaseChatModel:
    """Return a model that needs no key. In its place, `ChatOpenAI().bind_tools([weather])`."""
    call = {"name": "weather", "args": {"city": "Ulm"}, "id": "call-1"}
    answers = [AIMessage("", tool_calls=[call]), AIMessage("It is sunny: leave the umbrella.")]
    return GenericFakeChatModel(messages=iter(answers))


model = make_model()


def think(state: MessagesState) -> MessagesState:
    """Have the model answer, or ask for a tool."""
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode([weather]))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
agent = graph.compile()


if __name__ == "__main__":
    handler = ArthurCallbackHandler.from_env()
    run_id = uuid.uuid4()  # the trace's id, by which feedback finds it
    config = RunnableConfig(
        callbacks=[handler], run_id=run_id, metadata={"session_id": "s1", "user_id": "u1"}
    )
    result = agent.invoke({"messages": [HumanMessage("Do I need an umbrella in Ulm?")]}, config)
    print(result["messages"][-1].content)
    handler.log_feedback(run_id, liked=True, description="helpful")
    print(handler.flush())
