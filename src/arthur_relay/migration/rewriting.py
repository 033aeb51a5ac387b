"""Finds what has to change in one module, and makes of it the module with what is certain changed.

Formatting and comments stay as they are: the changes are made in a concrete syntax tree.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.helpers import get_full_name_for_node
from libcst.metadata import (
    ImportAssignment,
    MetadataWrapper,
    PositionProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
    ScopeProvider,
)

from arthur_relay.migration.chat_models import ChatModels
from arthur_relay.migration.findings import Finding, Verdict
from arthur_relay.migration.moved_names import (
    HANDLER,
    NEW_HANDLER,
    OLD_HANDLER_MODULES,
    Place,
    is_gone,
    place_of,
)

_SENDS_ROWS = (
    "with `relay.capture(Inference(...))` a background worker sends inferences, batches and tries"
    " again; the call returns at once"
)
_SENDS_TRUTH = "`relay.log_ground_truth(run_id, {...})` sends it behind its inference"
SDK_METHODS = {
    "send_inference": _SENDS_ROWS,
    "send_inferences": _SENDS_ROWS,
    "send_bulk_inferences": _SENDS_ROWS,
    "send_batch_inferences": _SENDS_ROWS,
    "update_inference_ground_truths": _SENDS_TRUTH,
    "send_bulk_ground_truths": _SENDS_TRUTH,
    "send_batch_ground_truths": _SENDS_TRUTH,
}
"""Methods of `arthurai.ArthurModel` that send rows, and what does so here."""

_GONE_METHODS = frozenset({"call_as_llm", "predict", "predict_messages"})
_MODEL_NAMES = frozenset({"chat_llm", "chat_model", "chatgpt", "llm"})
"""What models are called in guides; a call of one may be a model's where it can't be followed."""


@dataclass(frozen=True)
class Rewritten:
    """What was found in a module.

    Attributes:
        code: The module with what is certain changed.
        findings: In the order of their places.
    """

    code: bytes
    findings: Sequence[Finding]


def rewrite(code: bytes) -> Rewritten:
    """Find what has to change in a module, and change what is certain.

    Args:
        code: The module's source, in any encoding that Python reads.

    Raises:
        libcst.ParserSyntaxError: It is not Python.
        UnicodeDecodeError: It is not in the encoding that it names.
        SyntaxError: There is no encoding of the name that it gives.
        RecursionError: It is nested deeper than Python itself can read.
    """
    _refuse_depth(code)
    wrapper = MetadataWrapper(cst.parse_module(code))
    rewriter = _Rewriter(ChatModels(wrapper))
    module = wrapper.visit(rewriter)
    if rewriter.needs_module:
        context = CodemodContext()
        AddImportsVisitor.add_needed_import(context, NEW_HANDLER.module)
        module = AddImportsVisitor(context).transform_module(module)
        module = MetadataWrapper(module).visit(_UnusedImports())
    return Rewritten(module.bytes, sorted(rewriter.findings))


def _refuse_depth(code: bytes) -> None:
    """Raise a RecursionError where the library's parser would end the process."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code)
    except MemoryError as error:
        raise RecursionError from error
    except (SyntaxError, ValueError) as error:  # else the library judges, by its own grammar
        if "too many nested" in str(error):
            raise RecursionError from error


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider, QualifiedNameProvider, ScopeProvider)

    def __init__(self, models: ChatModels) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self.needs_module = False
        """Whether `arthur_relay.X` is written somewhere, so that it has to be imported."""
        self._models = models
        self._in_import = False

    # Imports.

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        module = _module(node)
        if isinstance(node.names, cst.ImportStar):
            if module in OLD_HANDLER_MODULES:
                self._decide(
                    node, f"`from {module} import *` may bring the old handler; name what is used"
                )
            return False
        if _is_sdk(module):
            self._note_sdk(node)
        for alias in node.names:
            self._find_import(alias, module)
        return False

    def _find_import(self, alias: cst.ImportAlias, module: str) -> None:
        name = get_full_name_for_node(alias.name) or ""
        place = place_of([f"{module}.{name}"])
        if place == NEW_HANDLER:
            self._change(alias, f"import {HANDLER} from {place.module}: {module} has been sunset")
        elif place is not None:
            self._change(
                alias,
                f"import {name} from {place.module}: LangChain 1 has it there"
                f" (pip install {place.package})",
            )
        elif f"{module}.{name}" in OLD_HANDLER_MODULES:
            return  # what is taken from it is found where it is used
        elif is_gone(module) or (module == "langchain.chat_models" and name.startswith("Chat")):
            self._decide(
                alias, f"LangChain 1 has no {module}.{name}; find the package that has it now"
            )

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        statements = _with_moved_imports(updated_node.body)
        if len(updated_node.body) > 1 or len(statements) == 1:
            return updated_node.with_changes(body=_on_one_line(statements))
        lines = [_line(statement) for statement in statements]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.BaseSuite:
        return updated_node.with_changes(body=_on_one_line(_with_moved_imports(updated_node.body)))

    def visit_Import(self, node: cst.Import) -> bool:
        for alias in node.names:
            if _is_sdk(get_full_name_for_node(alias.name) or ""):
                self._note_sdk(alias)
        return False

    def _note_sdk(self, node: cst.CSTNode) -> None:
        self._add(
            node,
            Verdict.NOTE,
            "arthurai can't be installed beside current LangChain, and is not needed to send"
            " inferences; keep what onboards models in an environment of its own",
        )

    # Uses.

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.BaseExpression:
        names = [
            name.name
            for name in self.get_metadata(QualifiedNameProvider, original_node, ())
            if name.source is QualifiedNameSource.IMPORT
        ]
        if place_of(names) != NEW_HANDLER or original_node.attr.value != HANDLER:
            return updated_node
        self._change(
            original_node, f"use {NEW_HANDLER.module}.{HANDLER}; the old handler has been sunset"
        )
        self.needs_module = True
        value = cst.Name(
            NEW_HANDLER.module, lpar=original_node.value.lpar, rpar=original_node.value.rpar
        )
        return updated_node.with_changes(value=value)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        function = original_node.func
        if self._is_handler(function):
            self._decide(
                original_node,
                f"the handler takes an arthurai.ArthurModel still, but arthurai can't be installed"
                f" beside current LangChain: use {HANDLER}.from_credentials(model_id, ...)",
            )
        elif isinstance(function, cst.Attribute):
            self._find_method(original_node, function)
        elif isinstance(function, cst.Name):
            return self._call_of_model(original_node, updated_node, function)
        return updated_node

    def _find_method(self, call: cst.Call, function: cst.Attribute) -> None:
        method = function.attr.value
        if method == "from_credentials" and self._is_handler(function.value):
            self._add(
                call,
                Verdict.NOTE,
                "from_credentials takes the same arguments; it is flushed when the process ends",
            )
        elif method in SDK_METHODS:
            self._decide(call, f"{method} sends within the call; {SDK_METHODS[method]}")
        elif method in _GONE_METHODS and self._models.is_model(function.value):
            self._decide(call, f"LangChain 1's models have no {method}; use invoke")

    def _call_of_model(
        self, original: cst.Call, updated: cst.Call, function: cst.Name
    ) -> cst.BaseExpression:
        is_model = self._models.is_model(function)
        if not is_model and not (function.value in _MODEL_NAMES and self._is_local(function)):
            return updated
        arguments = original.args
        is_simple = len(arguments) == 1 and not arguments[0].keyword and not arguments[0].star
        sentence = f"LangChain 1's models can't be called; use {function.value}.invoke(...)"
        if is_model and is_simple:
            self._change(original, sentence)
            return updated.with_changes(func=cst.Attribute(updated.func, cst.Name("invoke")))
        if is_model:
            sentence += ", with callbacks, tags and metadata in its config"
        else:
            sentence += f", if {function.value} is one"
        self._decide(original, sentence)
        return updated

    def _is_local(self, name: cst.Name) -> bool:
        """Return whether a name is bound by this module to something but a function or class."""
        scope = self.get_metadata(ScopeProvider, name, None)
        if scope is None:
            return False
        assigned = [each for each in scope[name.value] if hasattr(each, "node")]
        return bool(assigned) and not any(
            isinstance(each.node, (cst.FunctionDef, cst.ClassDef, cst.Import, cst.ImportFrom))
            for each in assigned
        )

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        if any(self._is_handler(base.value) for base in node.bases):
            self._decide(
                node.name,
                "a class of its own over the handler: the new one has no run_map, and its methods"
                " return before anything is sent; look at redact, on_dead_letter and metadata",
            )

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        value = node.evaluated_value
        if isinstance(value, str) and any(
            value in {module, f"{module}.{HANDLER}"}
            for module in OLD_HANDLER_MODULES
            if HANDLER in value or module.endswith("arthur_callback")
        ):
            self._decide(node, f"a text names the old handler; it is {'.'.join(NEW_HANDLER)} now")

    def _is_handler(self, node: cst.CSTNode) -> bool:
        names = [name.name for name in self.get_metadata(QualifiedNameProvider, node, ())]
        return place_of(names) == NEW_HANDLER or ".".join(NEW_HANDLER) in names

    # What is found.

    def _change(self, node: cst.CSTNode, sentence: str) -> None:
        self._add(node, Verdict.CHANGE, sentence)

    def _decide(self, node: cst.CSTNode, sentence: str) -> None:
        self._add(node, Verdict.DECIDE, sentence)

    def _add(self, node: cst.CSTNode, verdict: Verdict, sentence: str) -> None:
        start = self.get_metadata(PositionProvider, node).start
        self.findings.append(Finding(start.line, start.column + 1, verdict, sentence))


def _is_sdk(module: str) -> bool:
    return module.partition(".")[0] == "arthurai"


def _module(node: cst.ImportFrom) -> str:
    """Return the full name of what is imported from; that of a relative import is empty."""
    if node.module is None or node.relative:
        return ""
    return get_full_name_for_node(node.module) or ""


def _with_moved_imports(
    statements: Sequence[cst.BaseSmallStatement],
) -> list[cst.BaseSmallStatement]:
    moved: list[cst.BaseSmallStatement] = []
    for statement in statements:
        moved += _moved(statement) if isinstance(statement, cst.ImportFrom) else [statement]
    return moved


def _moved(node: cst.ImportFrom) -> list[cst.ImportFrom]:
    """Return an import from each place to which names in it have moved, and it with the rest."""
    module = _module(node)
    if isinstance(node.names, cst.ImportStar):
        return [node]
    stay: list[cst.ImportAlias] = []
    move: dict[str, list[cst.ImportAlias]] = {}
    for alias in node.names:
        place: Place | None = place_of([f"{module}.{get_full_name_for_node(alias.name)}"])
        (stay if place is None else move.setdefault(place.module, [])).append(alias)
    if not move:
        return [node]
    if not stay and len(move) == 1:  # only its module changes: its parentheses and comments stay
        return [node.with_changes(module=_dotted(*move))]
    moved = [_import_from(target, aliases) for target, aliases in move.items()]
    return [*moved, node.with_changes(names=_unseparated_end(stay, node))] if stay else moved


def _import_from(module: str, aliases: Sequence[cst.ImportAlias]) -> cst.ImportFrom:
    """Return an import of names; where they have comments, each has a line of its own."""
    comments = [_comment(alias) for alias in aliases]
    if not any(comments):
        return cst.ImportFrom(module=_dotted(module), names=_separated(aliases))
    plain = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in aliases]
    lines = "".join(
        f"    {cst.Module([]).code_for_node(alias)},  {comment}".rstrip() + "\n"
        for alias, comment in zip(plain, comments, strict=True)
    )
    parsed = cst.ensure_type(
        cst.parse_statement(f"from {module} import (\n{lines})"), cst.SimpleStatementLine
    )
    return cst.ensure_type(parsed.body[0], cst.ImportFrom)


def _comment(alias: cst.ImportAlias) -> str:
    """Return the comment behind a name's comma."""
    if isinstance(alias.comma, cst.Comma) and isinstance(
        alias.comma.whitespace_after, cst.ParenthesizedWhitespace
    ):
        comment = alias.comma.whitespace_after.first_line.comment
        return comment.value if comment is not None else ""
    return ""


def _dotted(name: str) -> cst.Attribute | cst.Name:
    parsed = cst.parse_expression(name)
    assert isinstance(parsed, (cst.Attribute, cst.Name))
    return parsed


def _separated(aliases: Sequence[cst.ImportAlias]) -> list[cst.ImportAlias]:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    last = len(aliases) - 1
    return [
        alias.with_changes(comma=cst.MaybeSentinel.DEFAULT if place == last else comma)
        for place, alias in enumerate(aliases)
    ]


def _unseparated_end(
    aliases: Sequence[cst.ImportAlias], node: cst.ImportFrom
) -> list[cst.ImportAlias]:
    """Return what is left of an import's names; only within parentheses may a comma end them."""
    if node.lpar is not None:
        return [*aliases]
    return [*aliases[:-1], aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)]


def _line(statement: cst.BaseSmallStatement) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([statement])


def _on_one_line(statements: Sequence[cst.BaseSmallStatement]) -> list[cst.BaseSmallStatement]:
    """Return statements with a semicolon after each that has none, but for the last."""
    between = cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))
    return [
        statement
        if isinstance(statement.semicolon, cst.Semicolon)
        else statement.with_changes(semicolon=between)
        for statement in statements[:-1]
    ] + [*statements[-1:]]


_Import = TypeVar("_Import", cst.Import, cst.ImportFrom)


class _UnusedImports(cst.CSTTransformer):
    """Removes imports of the old handler's module that nothing uses any more."""

    METADATA_DEPENDENCIES = (ScopeProvider,)

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        return self._without_unused(original_node, updated_node, f"{_module(original_node)}.")

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.Import | cst.RemovalSentinel:
        return self._without_unused(original_node, updated_node, "")

    def _without_unused(
        self, original: _Import, updated: _Import, prefix: str
    ) -> _Import | cst.RemovalSentinel:
        if isinstance(updated.names, cst.ImportStar) or isinstance(original.names, cst.ImportStar):
            return updated
        used = [alias for alias in original.names if not self._is_unused(original, alias, prefix)]
        if len(used) == len(original.names):
            return updated
        return updated.with_changes(names=_separated(used)) if used else cst.RemoveFromParent()

    def _is_unused(
        self, node: cst.Import | cst.ImportFrom, alias: cst.ImportAlias, prefix: str
    ) -> bool:
        if prefix + (get_full_name_for_node(alias.name) or "") not in OLD_HANDLER_MODULES:
            return False
        scope = self.get_metadata(ScopeProvider, node, None)
        bound = alias.evaluated_alias or alias.evaluated_name.partition(".")[0]
        assigned: Collection[object] = scope[bound] if scope is not None else ()
        return bool(assigned) and all(
            isinstance(each, ImportAssignment) and not each.references for each in assigned
        )
