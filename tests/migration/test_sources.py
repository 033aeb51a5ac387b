"""Which files are looked at, and how one is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from arthur_relay.migration.sources import Source, UnreadableError, files_in

pytestmark = pytest.mark.one_python

OLD = b"from langchain.callbacks import ArthurCallbackHandler\n"


def test_what_others_made_is_left_out(tmp_path: Path) -> None:
    for name in (
        "app.py",
        "types.pyi",
        "chat.ipynb",
        "readme.md",
        "sub/more.py",
        ".git/hook.py",
        ".venv/lib.py",
        "env/pyvenv.cfg",
        "env/lib.py",
        "node_modules/x.py",
        "lib/site-packages/x.py",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (tmp_path / "link.py").symlink_to(tmp_path / "app.py")
    (tmp_path / "around").symlink_to(tmp_path, target_is_directory=True)
    found = [str(file.relative_to(tmp_path)) for file in files_in([tmp_path])]
    assert found == ["app.py", "chat.ipynb", "types.pyi", "sub/more.py"]


def test_a_file_that_is_named_is_taken_once(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_bytes(OLD)
    assert [*files_in([file, file, tmp_path / "." / "script"])] == [file]


def test_a_file_is_replaced_with_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_bytes(OLD)
    file.chmod(0o750)
    source = Source(file)
    assert source.is_changed
    source.write()
    assert file.read_bytes() == b"from arthur_relay import ArthurCallbackHandler\n"
    assert file.stat().st_mode & 0o777 == 0o750
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_that_changed_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_bytes(OLD)
    source = Source(file)
    file.write_bytes(OLD + b"# mine\n")
    with pytest.raises(OSError, match="has changed"):
        source.write()
    assert file.read_bytes() == OLD + b"# mine\n"


def test_a_file_without_arthur_need_not_be_python(tmp_path: Path) -> None:
    file = tmp_path / "template.py"
    file.write_bytes(b"print '{{ name }}'\n")
    assert not Source(file).findings


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("old.py", OLD + b'print "x"\n', "line 2"),
        ("bytes.py", OLD + b"x = '\xff'\n", "encoding"),
        ("coding.py", b"# coding: nothing\n" + OLD, "encoding"),
        ("chat.ipynb", OLD, "no notebook"),
        ("deep.py", OLD + b"x = " + b"(" * 3_000 + b")" * 3_000 + b"\n", "."),
    ],
)
def test_what_can_not_be_read_is_told(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UnreadableError, match=says):
        Source(file)
