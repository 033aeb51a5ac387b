"""What is found in a module, and what is certain enough to be changed."""

from __future__ import annotations

from textwrap import dedent

import pytest

from arthur_relay.migration.findings import Verdict
from arthur_relay.migration.moved_names import OLD_HANDLER_MODULES
from arthur_relay.migration.rewriting import rewrite

pytestmark = pytest.mark.one_python

GUIDE = """\
from langchain.callbacks import ArthurCallbackHandler
from langchain.callbacks.streaming_stdout import StreamingStdOutCallbackHandler
from langchain.chat_models import ChatOpenAI
from langchain.schema import HumanMessage

def make_langchain_chat_llm():
    return ChatOpenAI(
        streaming=True,
        temperature=0.1,
        callbacks=[
            StreamingStdOutCallbackHandler(),
            ArthurCallbackHandler.from_credentials(
                arthur_model_id,
                arthur_url=arthur_url,
                arthur_login=arthur_login)
        ])

chatgpt = make_langchain_chat_llm()

def run(llm):
    history = []
    while True:
        user_input = input("\\n>>> input >>>\\n>>>: ")
        if user_input == "q":
            break
        history.append(HumanMessage(content=user_input))
        history.append(llm(history))

run(chatgpt)
"""
"""Arthur's guide for the old handler."""


NEW = "from arthur_relay import ArthurCallbackHandler"


def changed(code: str) -> str:
    return rewrite(dedent(code).encode()).code.decode()


def found(code: str, verdict: Verdict) -> list[tuple[int, str]]:
    findings = rewrite(dedent(code).encode()).findings
    return [(each.line, each.sentence) for each in findings if each.verdict is verdict]


def test_arthurs_guide_becomes_what_runs_today() -> None:
    after = changed(GUIDE)
    assert after.splitlines()[:4] == [
        "from arthur_relay import ArthurCallbackHandler",
        "from langchain_core.callbacks import StreamingStdOutCallbackHandler",
        "from langchain_openai import ChatOpenAI",
        "from langchain_core.messages import HumanMessage",
    ]
    assert "        history.append(llm.invoke(history))\n" in after
    assert len(after.splitlines()) == len(GUIDE.splitlines())
    assert not found(GUIDE, Verdict.DECIDE)
    exec(compile("\n".join(after.splitlines()[:4]), "imports", "exec"), {})


def test_what_is_changed_has_nothing_left_to_change() -> None:
    once = changed(GUIDE)
    assert changed(once) == once
    assert not found(once, Verdict.CHANGE)


@pytest.mark.parametrize("module", OLD_HANDLER_MODULES)
@pytest.mark.parametrize("alias", ["", " as Handler"])
def test_each_import_of_the_old_handler_is_changed(module: str, alias: str) -> None:
    code = f"from {module} import ArthurCallbackHandler{alias}  # logs\n"
    assert changed(code) == f"from arthur_relay import ArthurCallbackHandler{alias}  # logs\n"


def test_other_names_of_an_import_stay_where_they_are() -> None:
    before = """\
        # about the handler
        from langchain_community.callbacks import (
            ArthurCallbackHandler as Handler,  # logs
            get_openai_callback,  # counts
        )
    """
    after = """\
        # about the handler
        from arthur_relay import (
            ArthurCallbackHandler as Handler,  # logs
        )
        from langchain_community.callbacks import (
            get_openai_callback,  # counts
        )
    """
    assert changed(before) == dedent(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "from langchain_community.callbacks import other, ArthurCallbackHandler\n",
            [
                "from arthur_relay import ArthurCallbackHandler",
                "from langchain_community.callbacks import other",
            ],
        ),
        (
            "if True: from langchain.callbacks import ArthurCallbackHandler; x = 1\n",
            ["if True: from arthur_relay import ArthurCallbackHandler; x = 1"],
        ),
        (
            "import os; from langchain_community.callbacks import ArthurCallbackHandler, other\n",
            [f"import os; {NEW}; from langchain_community.callbacks import other"],
        ),
        (
            "from langchain.schema import AIMessage, LLMResult\n",
            [
                "from langchain_core.messages import AIMessage",
                "from langchain_core.outputs import LLMResult",
            ],
        ),
        (
            "from langchain.schema import (  # what is said\n    AIMessage,  # by it\n)\n",
            [
                "from langchain_core.messages import (  # what is said",
                "    AIMessage,  # by it",
                ")",
            ],
        ),
    ],
    ids=["one of two", "on the line of a block", "two on a line", "to two places", "comments"],
)
def test_an_import_keeps_its_form(before: str, after: list[str]) -> None:
    assert changed(before).splitlines() == after


@pytest.mark.parametrize(
    ("imported", "used"),
    [
        ("import langchain.callbacks", "langchain.callbacks.ArthurCallbackHandler"),
        ("import langchain", "langchain.callbacks.ArthurCallbackHandler"),
        ("import langchain.callbacks as c", "c.ArthurCallbackHandler"),
        ("from langchain import callbacks", "callbacks.ArthurCallbackHandler"),
        (
            "from langchain_community.callbacks import arthur_callback as a",
            "a.ArthurCallbackHandler",
        ),
    ],
)
def test_a_handler_that_is_named_by_its_module_is_changed(imported: str, used: str) -> None:
    code = changed(f"{imported}\n\nhandler = {used}.from_credentials('m')\n")
    assert "import arthur_relay\n" in code
    assert "\nhandler = arthur_relay.ArthurCallbackHandler.from_credentials('m')\n" in code


def test_an_import_of_the_old_module_goes_with_its_last_use() -> None:
    code = changed(
        """\
        import langchain_community.callbacks.arthur_callback as a, os
        from langchain_community.callbacks import arthur_callback, manager
        x = a.ArthurCallbackHandler, arthur_callback.ArthurCallbackHandler, arthur_callback.NAME
        """
    )
    assert "import os\n" in code
    assert "from langchain_community.callbacks import arthur_callback, manager\n" in code


def test_line_ends_and_the_encoding_stay() -> None:
    code = (
        "# -*- coding: latin-1 -*-\r\n"
        "from langchain.callbacks import ArthurCallbackHandler\r\n"
        "name = 'ä'\r\n"
    ).encode("latin-1")
    assert rewrite(code).code == code.replace(b"langchain.callbacks", b"arthur_relay")


@pytest.mark.parametrize(
    "code",
    [
        "llm = ChatOpenAI()\nllm('hello')",
        "llm: object = ChatOpenAI()\nllm('hello')",
        "if (llm := ChatOpenAI()):\n    llm('hello')",
        "llm = ChatOpenAI().bind(stop=['.'])\nllm('hello')",
        "def make():\n    return ChatOpenAI()\nllm = make()\nllm('hello')",
        "def ask(llm):\n    return llm('hello')\nask(llm=ChatOpenAI())",
        "def ask(a, /, llm):\n    return llm('hello')\nm = ChatOpenAI()\nask(1, m)",
    ],
)
def test_a_call_of_a_model_becomes_invoke(code: str) -> None:
    code = f"from langchain.chat_models import ChatOpenAI\n{code}\n"
    assert "llm.invoke('hello')" in changed(code)
    assert not found(code, Verdict.DECIDE)


@pytest.mark.parametrize(
    "code",
    [
        "def ask(llm):\n    return llm('hello')",
        "def ask(llm):\n    return llm('hello')\nask(ChatOpenAI())\nask(print)",
        "def ask(llm):\n    return llm('hello')\nask(*models)",
        "llm = ChatOpenAI() if x else print\nllm('hello')",
        "llm = ChatOpenAI()\nllm('hello', callbacks=[])",
        "llm = ChatOpenAI()\nllm(*given)",
        "llm = ChatOpenAI()\nllm.predict('hello')",
    ],
)
def test_a_call_that_may_be_another_things_is_left_to_a_person(code: str) -> None:
    code = f"from langchain.chat_models import ChatOpenAI\n{code}\n"
    assert changed(code).splitlines()[1:] == code.splitlines()[1:]
    assert len(found(code, Verdict.DECIDE)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "model = load()\nmodel(x)",
        "from mine import llm\nllm(x)",
        "def llm(x): ...\nllm(x)",
        "class llm: ...\nllm(x)",
        "from . import callbacks\ncallbacks.ArthurCallbackHandler()",
        "from .langchain.callbacks import ArthurCallbackHandler",
        "from langchain.chat_models import init_chat_model",
        "from langchain.agents import create_agent",
        "from langchain_community.callbacks import get_openai_callback",
        "text = 'langchain.callbacks'",
    ],
)
def test_what_has_nothing_to_do_with_it_is_left_alone(code: str) -> None:
    assert changed(code) == code
    assert not rewrite(code.encode()).findings


@pytest.mark.parametrize(
    ("code", "line", "says"),
    [
        ("from langchain.callbacks import *", 1, "name what is used"),
        (
            "from langchain.schema.runnable import RunnableMap",
            1,
            "has no langchain.schema",
        ),
        (
            "from arthur_relay import ArthurCallbackHandler\nArthurCallbackHandler(model)",
            2,
            "from_credentials",
        ),
        (
            "from langchain.callbacks import ArthurCallbackHandler as A\nclass B(A): ...",
            2,
            "no run_map",
        ),
        ("model.send_inferences([])", 1, "relay.capture(Inference(...))"),
        ("model.send_bulk_ground_truths(d)", 1, "relay.log_ground_truth"),
        (
            "NAME = 'langchain_community.callbacks.arthur_callback.ArthurCallbackHandler'",
            1,
            "arthur_relay.ArthurCallbackHandler",
        ),
    ],
)
def test_what_a_person_has_to_decide_is_told_with_its_place(
    code: str, line: int, says: str
) -> None:
    [(at, sentence)] = found(code, Verdict.DECIDE)
    assert at == line
    assert says in sentence


@pytest.mark.parametrize(
    "code", ["import arthurai", "import arthurai.core as c", "from arthurai import ArthurAI"]
)
def test_the_sdk_is_noted(code: str) -> None:
    [(line, sentence)] = found(code, Verdict.NOTE)
    assert line == 1
    assert "environment of its own" in sentence
