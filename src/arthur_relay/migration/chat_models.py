"""Which names of a source stand for LangChain's models, so that calling one can be found.

LangChain 1 has no `llm(messages)`. Whether `llm` is a model can't be seen where it is called: it is
followed through assignments, functions that return one and parameters that are given one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import libcst as cst
from libcst.metadata import (
    FunctionScope,
    MetadataWrapper,
    QualifiedName,
    Scope,
    ScopeProvider,
)

from arthur_relay.migration.moved_names import MODEL_CLASSES

_SAME_MODEL = frozenset({"bind", "bind_tools", "configurable_fields", "with_config", "with_retry"})
"""Methods of a model that return a model."""


class ChatModels:
    """The models of one module.

    Args:
        wrapper: The module with its metadata; every node is one of its module's.
    """

    def __init__(self, wrapper: MetadataWrapper) -> None:
        self._scopes = wrapper.resolve(ScopeProvider)
        self._known: dict[cst.CSTNode, bool] = {}
        bindings = _Bindings(self._scopes)
        wrapper.module.visit(bindings)
        self._values = bindings.values
        self._returned = bindings.returned
        self._parameters = bindings.parameters
        self._calls: dict[cst.FunctionDef, list[cst.Call]] = defaultdict(list)
        for call in bindings.calls:
            for function in self._functions(call.func):
                self._calls[function].append(call)

    def is_model(self, expression: cst.BaseExpression) -> bool:
        """Return whether an expression is certain to be a model."""
        known = self._known.get(expression)
        if known is None:
            self._known[expression] = False  # what is defined by itself is none
            known = self._known[expression] = self._find_out(expression)
        return known

    def _find_out(self, expression: cst.BaseExpression) -> bool:
        match expression:
            case cst.Name():
                nodes = self._assigned(expression)
                return bool(nodes) and all(self._is_bound_to_model(node) for node in nodes)
            case cst.Call(func=cst.Attribute(value=value, attr=cst.Name(value=method))) if (
                method in _SAME_MODEL and self.is_model(value)
            ):
                return True
            case cst.Call(func=function):
                scope = self._scopes.get(function)
                names = scope.get_qualified_names_for(function) if scope is not None else ()
                if any(map(_is_model_class, names)):
                    return True
                functions = self._functions(function)
                return bool(functions) and all(map(self._returns_model, functions))
        return False

    def _assigned(self, name: cst.Name) -> list[cst.CSTNode]:
        scope = self._scopes.get(name)
        if scope is None:
            return []
        return [node for each in scope[name.value] if (node := getattr(each, "node", None))]

    def _functions(self, function: cst.BaseExpression) -> list[cst.FunctionDef]:
        if not isinstance(function, cst.Name):
            return []
        nodes = self._assigned(function)
        functions = [node for node in nodes if isinstance(node, cst.FunctionDef)]
        return functions if len(functions) == len(nodes) else []

    def _is_bound_to_model(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Param):
            return self._is_given_model(node)
        value = self._values.get(node)
        return value is not None and self.is_model(value)

    def _is_given_model(self, parameter: cst.Param) -> bool:
        """Return whether every call that is seen gives this parameter a model."""
        function = self._parameters.get(parameter)
        calls = self._calls.get(function, []) if function is not None else []
        given = [_argument(call, function, parameter) for call in calls if function is not None]
        return bool(given) and all(each is not None and self.is_model(each) for each in given)

    def _returns_model(self, function: cst.FunctionDef) -> bool:
        returned = self._returned.get(function, [])
        return bool(returned) and all(map(self.is_model, returned))


def _is_model_class(name: QualifiedName) -> bool:
    module, _, last = name.name.rpartition(".")
    is_model = last in MODEL_CLASSES or (last.startswith("Chat") and "chat_models" in module)
    return is_model and module.startswith("langchain")


def _argument(
    call: cst.Call, function: cst.FunctionDef, parameter: cst.Param
) -> cst.BaseExpression | None:
    if any(argument.star for argument in call.args):
        return None
    name = parameter.name.value
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == name:
            return argument.value
    positional = [*function.params.posonly_params, *function.params.params]
    values = [argument.value for argument in call.args if argument.keyword is None]
    given = dict(zip([each.name.value for each in positional], values, strict=False))
    return given.get(name)


class _Bindings(cst.CSTVisitor):
    """Collects what names are bound to, and what functions return."""

    def __init__(self, scopes: Mapping[cst.CSTNode, Scope | None]) -> None:
        self.values: dict[cst.CSTNode, cst.BaseExpression] = {}
        self.returned: dict[cst.FunctionDef, list[cst.BaseExpression]] = defaultdict(list)
        self.parameters: dict[cst.Param, cst.FunctionDef] = {}
        self.calls: list[cst.Call] = []
        self._scopes = scopes
        self._within: list[cst.FunctionDef] = []

    def visit_Assign(self, node: cst.Assign) -> None:
        for target in node.targets:
            self.values[target.target] = node.value

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self.values[node.target] = node.value

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self.values[node.target] = node.value

    def visit_Call(self, node: cst.Call) -> None:
        self.calls.append(node)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._within.append(node)
        for parameter in (
            *node.params.posonly_params,
            *node.params.params,
            *node.params.kwonly_params,
        ):
            self.parameters[parameter] = node

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._within.pop()

    def visit_Return(self, node: cst.Return) -> None:
        if node.value is not None and isinstance(self._scopes.get(node.value), FunctionScope):
            self.returned[self._within[-1]].append(node.value)
