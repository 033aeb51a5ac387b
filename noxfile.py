"""The gate's parts, by name: `nox -l` lists them, `nox -s lint` runs one of them.

`.ci/run` runs all of them, after it has installed what some need of the system. Where such a thing
is missing, its tests are skipped and say so. What follows `--` goes to pytest:

    nox -s hosts -- -k gunicorn
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]

PINS = ("-c", "constraints.txt")
SDK_PYTHON = "3.11"
"""The last one that the arthurai SDK supports."""
OTHER_PYTHONS = ["3.12", "3.13"]

LONG = {
    "hosts": (
        ("tests/hosts", "tests/process", "tests/examples"),
        "Servers, forks, signals and exits, and docs/examples.",
    ),
    "daemon": (("tests/daemon", "tests/cli"), "The daemon, its pages, commands."),
    "fleet": (("tests/broker",), "Gateways and workers, with a real broker."),
    "end_to_end": (("tests/end_to_end",), "What each fault makes the relay do, over real sockets."),
    "deploy": (("tests/deploy",), "What is in deploy/, with the tools that read it."),
    "soak": (("tests/soak",), "Hours of trouble, in their short form."),
}
"""Suites that start processes and wait for them: too long for the README's test command. Every
other folder is in `testpaths` of pyproject.toml, or has a session of its own below."""

LOWEST = (
    "relay",
    "capture",
    "encoding",
    "buffers",
    "dead_letters",
    "delivery",
    "destinations",
    "worker",
    "runtime",
    "settings",
    "system",
    "http_server",
    "end_to_end",
    "fidelity",
)
# There is no LangGraph, and no API of OpenTelemetry. Faults are played by Scope's table.
NOT_WITH_LOWEST = (
    "tests/end_to_end/test_engine_faults.py",
    "tests/capture/test_trees.py",
    "tests/capture/test_exceptions.py",
    "tests/capture/test_otel_context.py",
)


PROVIDERS = ("tests/providers", "tests/migration/test_moved_names.py")


def default_folders() -> list[str]:
    """Return what pytest runs when nothing else is said."""
    options = nox.project.load_toml("pyproject.toml")["tool"]["pytest"]["ini_options"]
    return list(options["testpaths"])


def install(session: nox.Session, *others: str, extra: str = "test") -> None:
    """Install the project, as it is in this tree, and what the gate pins."""
    session.install(*PINS, "-e", f".[{extra}]", *others)


def uwsgi() -> tuple[str, ...]:
    """Return uWSGI where it can be built: there are no wheels of it."""
    return ("uwsgi",) if shutil.which("cc") else ()


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run pytest, and what follows `--` with it."""
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


def made(session: nox.Session, builder: str) -> str:
    """Have a module of the tests make an environment of other packages, where it has changed.

    Args:
        session: The session, which has no environment of its own.
        builder: The module; it takes a directory.

    Returns:
        The environment's Python.
    """
    directory = Path(".nox", session.name).absolute()
    session.run_install(sys.executable, "-m", builder, str(directory), external=True)
    return str(directory / "bin" / "python")


def run_there(session: nox.Session, python: str, *arguments: str) -> None:
    """Run pytest with a Python that has everything but the project, and what follows `--`."""
    session.run(
        *(python, "-m", "pytest", "-q", *arguments, *session.posargs),
        env={"PYTHONPATH": "src"},
        external=True,
    )


# What most changes concern.


@nox.session(reuse_venv=True)
def tests(session: nox.Session) -> None:
    """The README's test command, in an environment of its own."""
    install(session)
    run_tests(session)


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Lint, format, and which package may import which."""
    session.install(*PINS, "ruff", "import-linter")
    session.install("--no-deps", "-e", ".")  # imports are read, not run
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Types: mypy of everything, and pyright of the public API's uses."""
    install(session, extra="dev")
    session.run("mypy")
    session.run("pyright", "tests/type_checks")


@nox.session(reuse_venv=True)
def docs(session: nox.Session) -> None:
    """The documentation as a site: every link, and every name of the reference."""
    install(session, "pytest", "pytest-timeout", "pytest-xdist", extra="docs")
    site = Path(session.create_tmp(), "site")
    session.run("mkdocs", "build", "--strict", "--site-dir", str(site))
    run_tests(session, "-q", "-n", "0", "tests/project/test_site.py")


# The long suites.


def long_session(name: str, folders: tuple[str, ...], description: str) -> None:
    """Make a session of a long suite."""

    def run(session: nox.Session) -> None:
        prepare_long(session)
        run_tests(session, *folders)

    run.__doc__ = description
    nox.session(name=name, reuse_venv=True)(run)


def prepare_long(session: nox.Session) -> None:
    """Install what any of the long suites needs."""
    install(session, *uwsgi())
    tools = Path(".nox", "deploy-tools").absolute()  # each wheel carries a tool; they don't fit
    session.run_install("python", "-m", "venv", str(tools))
    session.run_install(
        str(tools / "bin" / "pip"), "install", "-q", "-r", "tests/deploy/tools.txt", external=True
    )
    session.env["TESTS_DEPLOY_TOOLS"] = str(tools / "bin")


for each, (its_folders, its_description) in LONG.items():
    long_session(each, its_folders, its_description)


@nox.session(reuse_venv=True)
def long(session: nox.Session) -> None:
    """All long suites at once, which takes less time than one after the other."""
    prepare_long(session)
    run_tests(session, *(folder for folders, _ in LONG.values() for folder in folders))


# Other Pythons, other versions.


@nox.session(python=OTHER_PYTHONS, reuse_venv=True)
def pythons(session: nox.Session) -> None:
    """What may depend on the Python, on each of the other ones."""
    install(session, *uwsgi())
    # What is in deploy/ does not depend on the Python of its tests. The broker's tests and the
    # soak mostly wait. The Python between the oldest and the newest runs what its version is most
    # likely to change: forks, signals and exits.
    is_newest = session.python == OTHER_PYTHONS[-1]
    names = ("hosts", "daemon", "end_to_end") if is_newest else ("hosts",)
    long = [folder for name in names for folder in LONG[name][0]]
    run_tests(session, "-q", "-m", "not one_python", *default_folders(), *long)


@nox.session(reuse_venv=True)
def lowest(session: nox.Session) -> None:
    """The lowest versions of everything that pyproject.toml allows."""
    pins = Path(session.create_tmp(), "lowest.txt")
    listed = session.run_install("python", "tests/lowest.py", silent=True)
    if isinstance(listed, str):
        pins.write_text(listed, encoding="utf-8")
    session.install("-r", str(pins))
    session.install("--no-deps", "-e", ".")
    folders = [f"tests/{folder}" for folder in LOWEST]
    files = [str(path) for path in sorted(Path("tests").glob("test_*.py"))]
    run_tests(session, "-q", *files, *folders, *(f"--ignore={each}" for each in NOT_WITH_LOWEST))


@nox.session(reuse_venv=True)
def langchain_core_1_2(session: nox.Session) -> None:
    """What rows say with the last langchain-core that takes a first text block for the text."""
    kept = Path(session.create_tmp(), "pins.txt")
    pins = Path("constraints.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    of_langchain = re.compile("langchain|langgraph|langsmith|openai")
    kept.write_text("".join(p for p in pins if not of_langchain.match(p)), encoding="utf-8")
    tools = ["blockbuster", "freezegun", "numpy", "pytest", "pytest-timeout", "pytest-xdist"]
    session.install("-c", str(kept), "-e", ".[daemon]", "langchain-core==1.2.11", *tools)
    run_tests(session, "-q", "tests/fidelity")


@nox.session(reuse_venv=True)
def systems(session: nox.Session) -> None:
    """The core where Windows is played, then macOS: without what those lack."""
    install(session)
    for system in ("windows", "macos"):
        session.run("python", "-m", "tests.other_systems", system, *session.posargs)


# The real thing: providers' packages, Arthur's SDKs, the peers.


@nox.session(python=False)
def providers(session: nox.Session) -> None:
    """The packages of LangChain's providers, and LangChain itself."""
    python = made(session, "tests.providers.environment")
    run_there(session, python, "-n", "3", "--dist", "load", *PROVIDERS)


@nox.session(python=False)
def conformance(session: nox.Session) -> None:
    """Arthur's own SDK and the old handler, against the sandbox."""
    python = made(session, "tests.conformance.sdk_env")
    run_there(session, python, "tests/conformance")


@nox.session(python=False)
def engine_conformance(session: nox.Session) -> None:
    """The SDK of Arthur Engine, and OpenInference's instrumentor, against the sandbox."""
    python = made(session, "tests.engine_sdk.environment")
    run_there(session, python, "tests/engine_sdk", "tests/engine_conformance")


@nox.session(python=False)
def benchmark(session: nox.Session) -> None:
    """The quick form of the benchmark beside every peer, and what it has to show."""
    python = made(session, "tests.benchmarks.environment")
    report = Path(".nox", "quick-report").absolute()
    session.run(
        python, "-m", "tests.benchmarks", "--quick", "--environment", "current",
        "--output", str(report), external=True,
    )  # fmt: skip
    session.env["TESTS_QUICK_REPORT"] = str(report)
    run_there(session, python, "tests/benchmarks/test_peers.py", "tests/benchmarks/test_quick.py")


# What is given away.


@nox.session(reuse_venv=True)
def package(session: nox.Session) -> None:
    """The distributions: what is in them, and that they install and import by themselves."""
    session.install(*PINS, "build")
    folder = Path(session.create_tmp(), "dist").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder))  # the wheel from the sdist
    session.run("python", "tests/distributions.py", str(folder))
    [wheel] = folder.glob("*.whl")
    # Whatever is new today: nothing here is pinned.
    session.install(str(wheel), "langchain", "langgraph", "langchain-openai", "openai", "pip")
    session.run("python", "-m", "pip", "check")
    session.chdir(folder)  # so that it is the wheel that is imported
    session.run("python", "-W", "error", "-c", "from arthur_relay import Relay; print(Relay)")
    said = session.run("arthur-relay", "check", success_codes=[2], silent=True)
    if isinstance(said, str) and "arthur-relay[daemon]" not in said:
        session.error(f"without its extra the command says only: {said}")
