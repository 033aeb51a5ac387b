"""Files of prompts: every form, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from arthur_relay.cli.demo.script import PromptsError, read_conversations

pytestmark = pytest.mark.one_python

MT_BENCH = Path(__file__).parents[3] / "shared" / "data" / "mt_bench" / "question.jsonl"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.txt", "one\n\n  two \n", [("one",), ("two",)]),
        ("p.txt", "\ufeffone", [("one",)]),
        ("p", '{"prompt": "one", "id": 7}\n{"text": "two"}', [("one",), ("two",)]),
        ("p.jsonl", '{"input": "one"}\n\n{"turns": ["a", "b"]}\n', [("one",), ("a", "b")]),
        ("p.txt", "one {\n[two]", [("one {",), ("[two]",)]),
        ("p.jsonl", '{"prompt": "half \\ud800"}', [("half ?",)]),
        ("p.jsonl", '{"prompt": "a\\nb\\u2028c"}', [("a\nb\u2028c",)]),
    ],
)
def test_what_can_be_read(
    tmp_path: Path, name: str, content: str, expected: list[tuple[str, ...]]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_conversations(path) == expected


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.txt", b"", "has no prompts"),
        ("p.txt", b"\n  \n", "has no prompts"),
        ("p.txt", b"one\n\xff\xfe\n", "line 2: this is not UTF-8"),
        ("p.jsonl", b"one", "line 1: this is not JSON"),
        ("p.jsonl", b'{"prompt": "one"}\n\n{"prompt": ', "line 3: this is not JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1: "),
        ("p.json", b'["one"]', "line 1: expected an object, not a list"),
        ("p.jsonl", b"7", "line 1: expected an object, not a number"),
        ("p.jsonl", b"true", "line 1: expected an object, not a boolean"),
        ("p", b'{"question": "one"}', 'line 1: the object needs "prompt"'),
        ("p", b'{"prompt": null}', 'line 1: "prompt" must be a text that is not empty, not null'),
        ("p", b'{"text": " "}', "not an empty one"),
        ("p", b'{"input": {}}', "not an object"),
        ("p", b'{"turns": []}', 'line 1: "turns" must be a list'),
        ("p", b'{"turns": "one"}', 'line 1: "turns" must be a list'),
        ("p", b'{"turns": ["one", 2]}', "line 1: each of the turns must be a text"),
    ],
)
def test_what_can_not(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PromptsError) as raised:
        read_conversations(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptsError, match=r"can't read .*none\.txt: No such file"):
        read_conversations(tmp_path / "none.txt")


@pytest.mark.skipif(not MT_BENCH.exists(), reason="MT-bench is not beside the repository")
def test_mt_bench() -> None:
    conversations = read_conversations(MT_BENCH)
    assert len(conversations) == 80
    assert {len(turns) for turns in conversations} == {2}
