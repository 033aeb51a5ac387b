"""What mkdocs_hooks.py does to pages; the site itself is built strictly by a step of the gate."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tests.project.test_documentation import anchors
from tests.readme import ROOT, page, pages

pytest.importorskip("mkdocs", reason="needs the extra `docs`, as the step that builds the site has")

import mkdocs_hooks
from mkdocs.config import load_config
from mkdocs.structure.files import get_files

pytestmark = pytest.mark.one_python


@pytest.fixture(scope="module")
def links() -> Any:
    config = load_config(str(ROOT / "mkdocs.yml"))
    made = mkdocs_hooks.RepositoryLinks(config)
    made.take(get_files(config))
    return made


@pytest.mark.parametrize(
    ("here", "link", "there"),
    [
        ("start.md", "usage.md#credentials", "usage.md#credentials"),
        ("start.md", "https://www.arthur.ai", "https://www.arthur.ai"),
        ("start.md", "#1-install-it", "#1-install-it"),
        ("daemon.md", "../deploy/README.md#alerts", "deploy/README.md#alerts"),
        ("README.md", "../CONTRIBUTING.md", "CONTRIBUTING.md"),
        ("reference/relay.md", "../usage.md", "../usage.md"),
        ("deploy/README.md", "../docs/fleet.md", "../fleet.md"),
        ("SECURITY.md", "docs/privacy.md", "privacy.md"),
        ("performance.md", "../tests/benchmarks/report/figure.svg", "{file}"),
        ("start.md", "../README.md#the-fleet", "{repository}/blob/main/README.md#the-fleet"),
        ("engine.md", "../tests/engine_conformance", "{repository}/tree/main/{file}"),
        ("start.md", "nowhere.md", "nowhere.md"),  # so that MkDocs says so
        ("start.md", "../../elsewhere.md", "../../elsewhere.md"),
    ],
)
def test_links(links: Any, here: str, link: str, there: str) -> None:
    source = ROOT / "docs" / here if (ROOT / "docs" / here).exists() else ROOT / here
    links.page = SimpleNamespace(file=SimpleNamespace(src_uri=here, abs_src_path=str(source)))
    repository = "https://github.com/arthur-relay/arthur-relay"
    file = link.removeprefix("../")
    assert links.resolve(link) == there.format(repository=repository, file=file)


def test_names_of_the_reference(links: Any) -> None:
    assert links.documented("Relay") == "arthur_relay.Relay"
    assert links.documented("Relay.flush()") == "arthur_relay.Relay.flush"
    assert links.documented("arthur_relay.testing.ArthurSandbox") is None  # a name in a module
    assert links.documented("ArthurSandbox()") == "arthur_relay.testing.ArthurSandbox"
    assert links.documented("batch_size") is None
    assert links.documented("Relay.flush(timeout)") is None


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("- a\n  b\n\nc", "- a\n    b\n\nc"),
        ("- a\n  - b\n    - c\n- d", "- a\n    - b\n        - c\n- d"),
        ("1. a\n\n   b\n2. c", "1. a\n\n    b\n2. c"),
        ("10. a\n\n    b", "10. a\n\n    b"),
        (
            "- a\n\n  ```sh\n  x\n    y\n  ```\n\nz",
            "- a\n\n    ```sh\n    x\n      y\n    ```\n\nz",
        ),
        ("```text\n  - a\n```\n  b", "```text\n  - a\n```\nb"),
    ],
)
def test_lists_are_indented_by_four(given: str, made: str) -> None:
    assert mkdocs_hooks.indented_by_four(given) == made + "\n"
    assert mkdocs_hooks.indented_by_four(made) == made + "\n"


def test_a_block_of_code_stays_one() -> None:
    assert mkdocs_hooks.indented_by_four("- a\n\n      b") == "- a\n\n        b\n"


@pytest.mark.parametrize("path", pages())
def test_headings_have_the_names_that_they_have_in_the_repository(path: str) -> None:
    lines = [line for line in page(path).splitlines() if line.startswith("## ")]
    named = {mkdocs_hooks.heading_name(line[3:].replace("`", "")) for line in lines}
    assert named <= anchors(path)


def test_what_another_host_would_be_asked_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    this: Any = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    fine = '<a href="https://a.example"><img src="b.png"><script src="/c.js"></script></a>'
    with caplog.at_level(logging.WARNING):
        assert mkdocs_hooks.on_post_page(fine, page=this) == fine
        assert not caplog.records
        mkdocs_hooks.on_post_page('<link rel="stylesheet" href="//f.example/css">', page=this)
    assert "a.md is loaded from another host: //f.example/css" in caplog.text
