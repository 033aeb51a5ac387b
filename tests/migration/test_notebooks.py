"""A notebook is changed in the lines that change, and in no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arthur_relay.migration.notebooks import NotANotebook, Notebook, Place

pytestmark = pytest.mark.one_python

CELLS = [
    ("markdown", "# Straße"),
    ("code", "%pip install x \\\n   y\nimport os"),
    ("code", "%%bash\necho 1"),
    ("code", "%%time\nfor x in y:\n    !ls {x}\n    print(x % 3)\n"),
    ("code", "llm?"),
    ("code", "files = !ls\n?llm"),
    ("code", ""),
]


def text_of(cells: list[tuple[str, str]] = CELLS, *, lines: bool = True, **form: Any) -> str:
    document = {
        "cells": [
            {
                "cell_type": kind,
                "metadata": {},
                "source": source.splitlines(keepends=True) if lines else source,
            }
            for kind, source in cells
        ],
        "nbformat": 4,
    }
    form = {"indent": 1, "ensure_ascii": False, **form}
    return json.dumps(document, **form) + "\n"


def test_magics_are_no_python_and_come_back_as_they_were() -> None:
    notebook = Notebook(text_of())
    compile(notebook.source, "notebook", "exec")
    assert "echo" not in notebook.source
    assert notebook.with_source(notebook.source) == text_of()


@pytest.mark.parametrize(
    "form", [{}, {"lines": False}, {"indent": 2}, {"indent": 4, "ensure_ascii": True}], ids=str
)
def test_nothing_but_the_changed_line_changes(form: dict[str, Any]) -> None:
    text = text_of(**form)
    notebook = Notebook(text)
    after = notebook.with_source(notebook.source.replace("import os", "import sys"))
    assert after == text.replace("import os", "import sys")


def test_a_notebook_in_another_form_is_not_written() -> None:
    notebook = Notebook(text_of(indent=3))
    with pytest.raises(NotANotebook, match="by hand"):
        notebook.with_source(notebook.source)


def test_a_line_has_its_cell() -> None:
    notebook = Notebook(text_of())
    lines = notebook.source.splitlines()
    assert notebook.place(lines.index("import os") + 1) == Place(cell=2, line=3)
    assert notebook.place(lines.index("    print(x % 3)") + 1) == Place(cell=4, line=4)


def test_what_a_change_puts_before_the_first_cell_is_in_it() -> None:
    notebook = Notebook(text_of([("code", "x = 1")]))
    after = notebook.with_source("import arthur_relay\n" + notebook.source)
    assert Notebook(after).shown == "# cell 1\nimport arthur_relay\nx = 1\n"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}', '{"cells": [{}]}', "print(1)"])
def test_what_is_no_notebook_is_told(text: str) -> None:
    with pytest.raises(NotANotebook, match="no notebook"):
        Notebook(text)
