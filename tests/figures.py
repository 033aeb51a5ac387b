"""Prints how the source is built, in figures: `python -m tests.figures`, `--where` for the places.

Each figure stands beside what it was before the parts were cut anew, and what it is to reach.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "arthur_relay"

JOURNEY = (
    "callback.py",  # on_llm_end
    "capture/open_runs.py",  # the run is taken out of those that are open
    "capture/queue.py",  # from the caller's thread to the worker's
    "worker/encode_stage.py",
    "destinations/scope/encoder.py",  # the run becomes a row
    "worker/admission.py",
    "buffers/memory.py",
    "delivery/batching.py",
    "delivery/sender.py",
    "destinations/scope/client.py",
    "destinations/http.py",  # the POST
)
"""The files that a row passes from `on_llm_end` to the POST, in reading order. Kept by hand.

It is the row of an ordinary run, with the default settings, that is delivered at the first attempt.
A file counts when the run, the row or the batch is handed to a function in it that hands it on; one
that computes a value of it (a text, a count of tokens, the copy of an answer) or says what it is
made of does not.
"""


class Figure(NamedTuple):
    """A line of the table."""

    name: str
    before: str
    now: str
    to_reach: str


@dataclass
class Module:
    """A file of the source.

    Attributes:
        path: Below the package.
        text: Its text.
    """

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        parts = ("arthur_relay", *self.path.with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Return where each name that is imported comes from: a module, and its name there."""
        return {
            name.asname or name.name: (node.module, name.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for name in node.names
        }

    @cached_property
    def aliases(self) -> dict[str, ast.expr]:
        """Return what is assigned to names at the top of the module, which a type alias is."""
        found = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found[name] = value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found[name] = value
        return found


class Source:
    """All files of the source."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.modules = [
            Module(path.relative_to(package), path.read_text(encoding="utf-8"))
            for path in sorted(package.rglob("*.py"))
        ]
        self._by_name = {module.name: module for module in self.modules}

    @property
    def lines(self) -> int:
        return sum(module.text.count("\n") for module in self.modules)

    @property
    def top_files(self) -> int:
        return sum(len(module.path.parts) == 1 for module in self.modules)

    def lambdas(self) -> Iterator[str]:
        """Yield where each lambda is."""
        for module in self.modules:
            found = [node for node in ast.walk(module.tree) if isinstance(node, ast.Lambda)]
            for line in sorted(node.lineno for node in found):
                yield f"{module.path}:{line}"

    def callable_parameters(self) -> Iterator[str]:
        """Yield where a constructor takes a function: an argument, or a dataclass's field."""
        for module in self.modules:
            for owner in module.classes:
                for name, annotation, default in _constructor(owner):
                    is_function = isinstance(default, ast.Lambda)
                    if is_function or self._is_callable(module, annotation):
                        yield f"{module.path}:{annotation.lineno} {owner.name}.{name}"

    def largest_protocol(self) -> tuple[int, str]:
        """Return how many members the largest protocol has, inherited ones too, and its name."""
        return max(
            (len(self._members(module, owner)), owner.name)
            for module in self.modules
            for owner in module.classes
            if _is_protocol(owner)
        )

    def _is_callable(self, module: Module, annotation: ast.expr) -> bool:
        """Whether an annotation is a function's, or None or another type beside it."""
        parts: list[ast.expr] = []
        match annotation:
            case ast.Name(id=name):
                return name == "Callable" or self._names_callable(module, name)
            case ast.Constant(value=str() as text):
                parts = [ast.parse(text, mode="eval").body]
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                parts = [left, right]
            case ast.Subscript(value=ast.Name(id="Optional" | "Union"), slice=inner):
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            case ast.Subscript(value=value):
                parts = [value]
        return any(self._is_callable(module, part) for part in parts)

    def _names_callable(self, module: Module, name: str) -> bool:
        """Whether a name is that of an alias of a function's type, or of a protocol of calls."""
        if name in module.aliases:
            return self._is_callable(module, module.aliases[name])
        owner = self._class(module, name)
        if owner is not None:
            return _is_protocol(owner[1]) and self._members(*owner) == {"__call__"}
        origin, original = module.imports.get(name, ("", ""))
        there = self._by_name.get(origin)
        return there is not None and self._names_callable(there, original)

    def _class(self, module: Module, name: str) -> tuple[Module, ast.ClassDef] | None:
        """Return a class by its name in a module, which may import it."""
        for owner in module.classes:
            if owner.name == name:
                return module, owner
        origin, original = module.imports.get(name, ("", ""))
        there = self._by_name.get(origin)
        return None if there is None else self._class(there, original)

    def _members(self, module: Module, owner: ast.ClassDef) -> set[str]:
        members = set()
        for node in owner.body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    members.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    members.add(name)
        for base in owner.bases:
            plain = base.value if isinstance(base, ast.Subscript) else base
            found = self._class(module, plain.id) if isinstance(plain, ast.Name) else None
            if found is not None and _is_protocol(found[1]):
                members |= self._members(*found)
        return members


def _constructor(owner: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    """Yield the parameters of a class's constructor: name, annotation and default."""
    if _is_dataclass(owner):
        for node in owner.body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    if not _is_no_parameter(annotation, value):
                        yield name, annotation, value
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            plain = [*node.args.posonlyargs, *node.args.args]
            defaults: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
            pairs = [
                *zip(plain, [*defaults, *node.args.defaults], strict=True),
                *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
            ]
            for argument, default in pairs:
                if argument.annotation is not None:
                    yield argument.arg, argument.annotation, default


def _is_dataclass(owner: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in owner.decorator_list)


def _is_no_parameter(annotation: ast.expr, value: ast.expr | None) -> bool:
    return "ClassVar" in ast.unparse(annotation) or (
        isinstance(value, ast.Call)
        and any(
            keyword.arg == "init"
            and isinstance(keyword.value, ast.Constant)
            and not keyword.value.value
            for keyword in value.keywords
        )
    )


def _is_protocol(owner: ast.ClassDef) -> bool:
    bases = {ast.unparse(base).partition("[")[0] for base in owner.bases}
    return not bases.isdisjoint({"Protocol", "typing.Protocol"})


def layers() -> list[list[str]]:
    """Return the modules of each layer of the contract on imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (
        each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    )
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


def figures(source: Source) -> list[Figure]:
    """Return the table."""
    callables, lambdas = len(list(source.callable_parameters())), len(list(source.lambdas()))
    members, largest = source.largest_protocol()
    named = [name for layer in layers() for name in layer]
    files = sum(not (ROOT / "src" / name.replace(".", "/")).is_dir() for name in named)
    return [
        Figure("constructor parameters that are callables", "61", str(callables), "15"),
        Figure("lambdas", "59", str(lambdas), "15"),
        Figure(f"members of the largest protocol ({largest})", "27", str(members), "11"),
        Figure("layers in the contract", "18", str(len(layers())), "9"),
        Figure("modules named in it", "58", str(len(named)), "-"),
        Figure("of which are files, not packages", "52", str(files), "0"),
        Figure("Python files at the top of the package", "28", str(source.top_files), "14"),
        Figure("lines of src", "21,300", f"{source.lines:,}", "19,500"),
        Figure("files from on_llm_end to the POST", "17", str(len(JOURNEY)), "12"),
    ]


def main() -> None:
    source = Source()
    table = [Figure("", "before", "now", "to reach"), *figures(source)]
    lines = [
        f"{name:<50}{before:>10}{now:>10}{to_reach:>10}" for name, before, now, to_reach in table
    ]
    if "--where" in sys.argv[1:]:
        for title, places in (
            ("Callables", source.callable_parameters()),
            ("Lambdas", source.lambdas()),
            ("The way of a row", JOURNEY),
        ):
            lines += ["", f"{title}:", *(f"  {place}" for place in places)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
