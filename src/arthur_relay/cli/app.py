"""The command's arguments: what can be typed, and where it goes."""

import gc
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arthur_relay.cli import INTERRUPTED, fail, version_line
from arthur_relay.errors import ConfigurationError
from arthur_relay.system.operating_system import check_daemon

logger = logging.getLogger("arthur_relay.daemon")

COLLECT_AFTER = 5_000
"""Objects more than there were when the collector last looked."""


class _Group(TyperGroup):
    """Ends in a sentence when Ctrl-C comes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail(INTERRUPTED, code=130)


def _examples(*lines: str) -> str:
    """Return the end of a command's help: what can be typed, one a line."""
    return "\b\n" + "\n".join(("Examples:", *(f"  {line}" for line in lines)))


def _typer(sentence: str, *examples: str, **more: Any) -> typer.Typer:
    return typer.Typer(
        cls=_Group,
        help=sentence,
        epilog=_examples(*examples),
        no_args_is_help=True,
        # Its tracebacks show local variables, and those hold prompts and credentials.
        pretty_exceptions_enable=False,
        # In boxes, flags look as if they took a value, and a long word is cut.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


_app = _typer(
    "Log the LLM inferences of LangChain applications to Arthur, out of their way.",
    "arthur-relay demo",
    "arthur-relay check",
    "arthur-relay serve --env-file /etc/arthur-relay/daemon.env",
    "arthur-relay --install-completion",
    name="arthur-relay",
)


def command() -> Any:
    """Return the command as what parses arguments, with its parts, for whoever describes it."""
    return typer.main.get_command(_app)


def run() -> None:
    """Run the command with the process's arguments.

    Raises:
        SystemExit: Always.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a check mark gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    _app(prog_name="arthur-relay")


def _roles() -> list[str]:
    """Return what `--role` can be, for the completion of shells."""
    from arthur_relay.daemon.settings import RoleName  # noqa: PLC0415 - each command loads its own

    return [role.value for role in RoleName]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it
    if not wanted:
        return
    typer.echo(version_line())
    raise typer.Exit


@_app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@_app.command(
    epilog=_examples(
        "arthur-relay sandbox",
        "arthur-relay sandbox --port 8080 --data arthur.sqlite",
    ),
)
def sandbox(
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file to keep the data in, made when missing; else it is in memory.",
        ),
    ] = None,
    model_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The id of the first model; else one is made up.",
        ),
    ] = None,
) -> None:
    """Run a local Arthur with a page to look at, until Ctrl-C.

    Prints the variables to export, with which the relay and Arthur's SDK find it.
    """
    from arthur_relay.cli.sandbox import run_sandbox  # noqa: PLC0415 - each command loads its own

    run_sandbox(host=host, port=port, data=data, model_id=model_id)


@_app.command(
    epilog=_examples(
        "arthur-relay serve --env-file /etc/arthur-relay/daemon.env",
        "arthur-relay serve --socket none --listen 127.0.0.1:8808",
    ),
)
def serve(
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of NAME=value lines that win over the environment; SIGHUP rereads it.",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            autocompletion=_roles,
            help="host, or in a fleet gateway or worker; else ARTHUR_RELAY_DAEMON_ROLE.",
        ),
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The Unix socket's path, or none; else ARTHUR_RELAY_DAEMON_SOCKET.",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where rows are taken by TCP; else ARTHUR_RELAY_DAEMON_LISTEN.",
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where health, metrics and the page are; else ARTHUR_RELAY_DAEMON_METRICS_LISTEN.",
        ),
    ] = None,
) -> None:
    """Run the daemon, which keeps rows safe and delivers them.

    Applications send their rows to it by Arthur's own API, and it answers once they are safe.

    With ARTHUR_BASE_URL it delivers to Arthur Engine, and takes traces by OTLP over HTTP; with
    ARTHUR_ENGINE_API_KEY as well, to both of Arthur's products.

    Everything is set by variables, ARTHUR_RELAY_DAEMON_* for the daemon and ARTHUR_RELAY_* for the
    pipeline; ARTHUR_RELAY_SPOOL_DIR is needed. SIGTERM drains, SIGHUP reloads. Exits with 0 after
    a clean stop, with 2 when the configuration can't be used, else with 1.
    """
    _need_what_the_daemon_needs()
    import asyncio  # noqa: PLC0415 - each command loads its own

    from arthur_relay.daemon import configuration, logs, server  # noqa: PLC0415 - the same
    from arthur_relay.daemon.settings import DAEMON_PREFIX  # noqa: PLC0415 - the same

    given = {"ROLE": role, "SOCKET": socket, "LISTEN": listen, "METRICS_LISTEN": metrics_listen}
    variables = {DAEMON_PREFIX + name: value for name, value in given.items() if value}
    read = partial(configuration.load, env_file, given=variables, started_with=dict(os.environ))
    try:
        found = read()
        writer = logs.set_up(found.daemon.log_format, found.daemon.log_level)
        if env_file is not None:
            logger.info("settings are read from the file %s and the environment", env_file)
        for unknown in configuration.unknown_variables(os.environ):
            logger.warning("%s", unknown.sentence)
        _collect_seldom()
        status = asyncio.run(server.Daemon(found, read, log=writer).run())
    except ConfigurationError as error:
        fail(str(error), code=2)
    raise typer.Exit(status)


def _collect_seldom() -> None:
    """Make the garbage collector run less often, and skip the objects that stay anyway.

    Each row is an object that the collector counts: by default it would look after every seven
    requests of a hundred rows, and through all modules now and then, which took a sixth of what a
    row costs. Rows are in no cycles; what is, is small.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


_Socket = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="PATH",
        help="The daemon's Unix socket; else ARTHUR_RELAY_DAEMON_SOCKET.",
    ),
]
_Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Its address instead: http://, and what ARTHUR_RELAY_DAEMON_METRICS_LISTEN is.",
    ),
]


@_app.command(
    epilog=_examples(
        "arthur-relay healthcheck",
        "arthur-relay healthcheck --ready --url http://127.0.0.1:9808",
    ),
)
def healthcheck(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it takes rows, not only whether it lives.")
    ] = False,
    socket: _Socket = None,
    url: _Url = None,
) -> None:
    """Ask a running daemon whether it is alive.

    This is for a container's health check, and for probes. It does not matter whether Arthur is
    there. Exits with 0 when it is alive, else with 1.
    """
    from arthur_relay.cli.daemon_client import Daemon, run_healthcheck  # noqa: PLC0415 - as below

    run_healthcheck(Daemon(socket, url), ready=ready)


@_app.command(
    epilog=_examples(
        "arthur-relay top",
        "arthur-relay top --once --socket /run/arthur-relay/relay.sock",
    ),
)
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    interval: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, max=3600, help="The time between two looks."),
    ] = 2.0,
    socket: _Socket = None,
    url: _Url = None,
) -> None:
    """Show a running daemon, until q or Ctrl-C.

    Throughput, queue, delivery, models and errors, as they are now. Exits with 0; with --once
    with 1 when the daemon does not answer.
    """
    from arthur_relay.cli.daemon_client import Daemon  # noqa: PLC0415 - each command loads its own
    from arthur_relay.cli.top import run_top  # noqa: PLC0415 - the same

    run_top(Daemon(socket, url), once=once, interval_seconds=interval)


@_app.command(
    epilog=_examples(
        "arthur-relay check",
        "arthur-relay check --daemon --env-file /etc/arthur-relay/daemon.env",
    ),
)
def check(
    *,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Check what arthur-relay serve needs, before a start.")
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --daemon: the file that serve is given.",
        ),
    ] = None,
) -> None:
    """Check that what is in the environment works.

    Sends no inference. Looks at the settings (ARTHUR_RELAY_*), the credentials (ARTHUR_API_KEY,
    or ARTHUR_LOGIN and ARTHUR_PASSWORD) and the model (ARTHUR_MODEL_ID), as
    ArthurCallbackHandler.from_env() does; with ARTHUR_BASE_URL or ARTHUR_TASK_ID at the key and
    the task of Arthur Engine, and at what the key may do. Exits with 0 when all is fine, else
    with 1.

    With --daemon it looks at what arthur-relay serve needs: its settings, the spool's directory
    and the integrity of its files, the sockets, the certificate and the tokens, the credentials
    and the way to Arthur. It changes nothing, and leaves files alone that a running daemon has.
    Run it as the daemon's user. Exits with 0 when all is fine, with 2 when the daemon would not
    start, with 1 when it would start and could not deliver.
    """
    if daemon:
        _need_what_the_daemon_needs()
        from arthur_relay.cli.check_daemon import run_check_daemon  # noqa: PLC0415 - as below

        run_check_daemon(env_file)
        return
    if env_file is not None:
        raise typer.BadParameter("it goes with --daemon only", param_hint="--env-file")
    from arthur_relay.cli.check import run_check  # noqa: PLC0415 - each command loads its own

    run_check()


@_app.command(
    epilog=_examples(
        "arthur-relay settings",
        "arthur-relay settings --daemon --json --env-file /etc/arthur-relay/daemon.env",
    ),
)
def settings(
    *,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Those of arthur-relay serve as well.")
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file of NAME=value lines that win over the environment."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, with defaults and descriptions.")
    ] = False,
) -> None:
    """Print every setting, its value, and where that came from.

    Secrets are not shown. Exits with 2 when a value is not allowed.
    """
    if daemon:
        _need_what_the_daemon_needs()
    from arthur_relay.cli.settings import run_settings  # noqa: PLC0415 - each loads its own

    run_settings(daemon=daemon, env_file=env_file, as_json=as_json)


@_app.command(
    epilog=_examples(
        "arthur-relay demo",
        "arthur-relay demo --prompts prompts.txt --outage 10",
    ),
)
def demo(
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts to stream: one a line, or JSONL with prompt, text, input or turns.",
        ),
    ] = None,
    *,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="The real Arthur of the environment, and OpenAI; no outage then."
        ),
    ] = False,
    outage: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, max=60, help="How long Arthur is away.")
    ] = 4.0,
    pace: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=1, max=10_000, help="Tokens a second of the demo's own chat model."
        ),
    ] = None,
) -> None:
    """Watch a conversation go on while Arthur is away.

    Runs a local Arthur, streams a conversation through a LangChain chat model under
    ArthurCallbackHandler, and takes Arthur away in the middle. Needs no account and no network.
    """
    from arthur_relay.cli.demo.run import run_demo  # noqa: PLC0415 - each command loads its own

    run_demo(prompts=prompts, live=live, outage_seconds=outage, tokens_per_second=pace)


@_app.command(
    epilog=_examples(
        "arthur-relay migrate src notebooks/chat.ipynb",
        "arthur-relay migrate --write src",
    ),
)
def migrate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Files and directories; of these, Python and notebooks."
        ),
    ],
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Change what is certain, after it was shown.")
    ] = False,
) -> None:
    """Find uses of LangChain's old Arthur handler.

    Says what to change and why. Shows what is certain as a diff; what a person has to decide,
    it only tells. Needs the extra `migrate`. Exits with 0 when nothing is left to do, with 1
    when something is, and with 2 when a file can't be read or written: so that it can stand in
    a pipeline.
    """
    from arthur_relay.cli.migrate import run_migrate  # noqa: PLC0415 - each command loads its own

    run_migrate(paths, write=write)


_dead_letters = _typer(
    "What Arthur did not take: list it, send it again, remove it.",
    "arthur-relay dead-letters list",
    "arthur-relay dead-letters replay --dry-run",
)
_app.add_typer(_dead_letters, name="dead-letters")


def _read_variables(path: Path | None) -> Path | None:
    """Put a file's variables into the environment, over those that are there."""
    if path is not None:
        _need_what_the_daemon_needs()
        from arthur_relay.daemon.configuration import read_env_file  # noqa: PLC0415 - as above

        try:
            os.environ.update(read_env_file(path))
        except ConfigurationError as error:
            fail(str(error), code=2)
    return path


EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        callback=_read_variables,
        help="A file of NAME=value lines that win over the environment: the one of serve.",
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        "--reason",
        metavar="WORDS",
        help="Only letters with these words in their reason, as `list` shows it: 'row 400' for"
        " instance. May be given several times.",
    ),
]


@_dead_letters.command(
    "list",
    epilog=_examples(
        "arthur-relay dead-letters list",
        "arthur-relay dead-letters list --reason 'row 400' --with-text",
    ),
)
def list_dead_letters(
    reasons: Reasons = None,
    *,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="The rows as well, with what is in them.")
    ] = False,
    _env_file: EnvFile = None,
) -> None:
    """List dead letters, oldest first.

    No prompt is shown unless asked for. Spans for Arthur Engine are listed with their names and
    kinds.

    They are those of ARTHUR_RELAY_SPOOL_DIR and ARTHUR_RELAY_DEAD_LETTER_FILE, and those of the
    fleet whose broker is at ARTHUR_RELAY_BROKER_URL.
    """
    from arthur_relay.cli.dead_letters import run_list  # noqa: PLC0415 - each command loads its own

    run_list(reasons=reasons or (), with_text=with_text)


@_dead_letters.command(
    "show",
    epilog=_examples(
        "arthur-relay dead-letters show 0192f8a1-6c1e-7d2b-9a3f-4e5d6c7b8a90",
    ),
)
def show_dead_letter(
    inference_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    _env_file: EnvFile = None,
) -> None:
    """Show all that is kept of an inference or a span.

    Its texts are shown too.
    A span can be named by its own id alone, or by its trace's.
    """
    from arthur_relay.cli.dead_letters import run_show  # noqa: PLC0415 - each command loads its own

    run_show(inference_id)


@_dead_letters.command(
    "replay",
    epilog=_examples(
        "arthur-relay dead-letters replay --dry-run",
        "arthur-relay dead-letters replay --reason 'login refused'",
    ),
)
def replay_dead_letters(
    reasons: Reasons = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many it would be, and send none.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Also those that were meant for another Arthur.")
    ] = False,
    _env_file: EnvFile = None,
) -> None:
    """Send dead letters once more, to the Arthur of the environment.

    What it takes is removed. Ctrl-C ends it; what was sent by then is not sent again.
    Inferences go to Arthur Scope only, and spans to Arthur Engine only, which is asked first
    whether it has them.
    """
    from arthur_relay.cli.dead_letters import run_replay  # noqa: PLC0415 - each its own

    run_replay(reasons=reasons or (), dry_run=dry_run, adopt=adopt)


@_dead_letters.command(
    "purge",
    epilog=_examples(
        "arthur-relay dead-letters purge --reason 'row 400'",
        "arthur-relay dead-letters purge --yes",
    ),
)
def purge_dead_letters(
    reasons: Reasons = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    _env_file: EnvFile = None,
) -> None:
    """Remove dead letters, once you have said yes to how many."""
    from arthur_relay.cli.dead_letters import run_purge  # noqa: PLC0415 - each its own

    run_purge(reasons=reasons or (), yes=yes)


_spool = _typer(
    "What waits on disk: list it, or send it somewhere else.",
    "arthur-relay spool list",
    "arthur-relay spool adopt 0.spool",
)
_app.add_typer(_spool, name="spool")


@_spool.command(
    "list",
    epilog=_examples(
        "arthur-relay spool list",
        "arthur-relay spool list --env-file /etc/arthur-relay/daemon.env",
    ),
)
def list_spools(_env_file: EnvFile = None) -> None:
    """List the spool's files, how many rows wait in each, and for whom.

    They are those of ARTHUR_RELAY_SPOOL_DIR.
    """
    from arthur_relay.cli.spool import run_list  # noqa: PLC0415 - each command loads its own

    run_list()


@_spool.command(
    "adopt",
    epilog=_examples(
        "arthur-relay spool adopt 0.spool",
    ),
)
def adopt_spool(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file, as `list` shows it.")],
    _env_file: EnvFile = None,
) -> None:
    """Have a file's rows sent to the Arthur of the environment.

    They are sent there whoever they were for. A file of inferences goes to Arthur Scope only, and
    one of spans to Arthur Engine only.
    """
    from arthur_relay.cli.spool import run_adopt  # noqa: PLC0415 - each command loads its own

    run_adopt(file)


def _need_what_the_daemon_needs() -> None:
    """End the command on a system where the daemon can't run and its modules can't be imported."""
    try:
        check_daemon()
    except ConfigurationError as error:
        fail(str(error), code=2)
