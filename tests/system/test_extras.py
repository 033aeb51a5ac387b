"""A package that is missing is an error that says which extra brings it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from arthur_relay.system.extras import MissingExtraError, needed_by
from tests import needs, warm

pytestmark = pytest.mark.one_python

IMPORTS = """
import sys
missing = sys.argv[1]
for name in list(sys.modules):  # a warm process has imported them already
    if name.partition(".")[0] == missing:
        del sys.modules[name]
sys.modules[missing] = None
for line in ("from arthur_relay.testing import ArthurSandbox", "import arthur_relay.sandbox"):
    try:
        exec(line)
    except ImportError as error:
        print(error)
from arthur_relay.testing import memory_relay
memory_relay()[0].close()
"""


@needs.forks  # of a warm process
@pytest.mark.parametrize("package", ["starlette", "uvicorn", "httptools"])
def test_the_sandbox_says_what_to_install(package: str) -> None:
    process = warm.python(
        IMPORTS,
        package,
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    told = f"The sandbox needs {package}, which is not installed"
    assert stdout == f"{told}: run pip install 'arthur-relay[daemon]'.\n" * 2


def test_a_package_of_no_extra_is_told_as_it_is() -> None:
    told = "No module named 'other'"
    with pytest.raises(ModuleNotFoundError, match=told) as raised, needed_by("x"):
        raise ModuleNotFoundError(told, name="other")
    assert not isinstance(raised.value, MissingExtraError)
