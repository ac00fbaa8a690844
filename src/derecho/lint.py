"""A static check of workflow code for what a replay would do differently.

It reads the source of a workflow and of the plain functions of its module that it calls, resolves names to objects, and
reports clocks, randomness, threads, I/O, the order of sets, swallowed cancellations and mutable module state. It can be
wrong in both directions: replaying histories is the proof, this is the early hint.
"""

import ast
import asyncio
import builtins
import inspect
import random
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from derecho.invocation import Definition
from derecho.workflow import WorkflowDefinition

_ADVICE = {
    "time": "the wall clock: use ctx.now(), ctx.sleep()",
    "random": "chance that a replay does not repeat: use ctx.random",
    "uuid": "an id that a replay does not repeat: use ctx.uuid4()",
    "secrets": "chance that a replay does not repeat: use ctx.random, or ctx.side_effect",
    "threading": "a thread: use ctx.go for a fiber, or an activity",
    "multiprocessing": "another process: use an activity",
    "subprocess": "another process: use an activity",
    "socket": "the network: use an activity",
    "requests": "the network: use an activity",
    "httpx": "the network: use an activity",
    "urllib": "the network: use an activity",
    "aiohttp": "the network: use an activity",
}
_ALLOWED = {"time.struct_time", "random.Random", "uuid.UUID", "uuid.uuid3", "uuid.uuid5"}
_CLOCK_METHODS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
_OS_CALLS = {"urandom", "getenv", "getpid", "system", "listdir", "remove", "environ"}


class Finding(NamedTuple):
    """One suspicious place: where, what it is, what to do instead."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def lint(*workflows: WorkflowDefinition | ModuleType) -> list[Finding]:
    """Check workflows, or all workflows of modules; an empty list means that nothing suspicious was seen."""
    found: list[Finding] = []
    seen: set[Any] = set()
    for item in workflows:
        definitions = (
            [item]
            if isinstance(item, WorkflowDefinition)
            else [value for value in vars(item).values() if isinstance(value, WorkflowDefinition)]
        )
        for definition in definitions:
            found.extend(_check(definition.fn, seen))
    return sorted(set(found), key=lambda finding: (finding.file, finding.line, finding.message))


def _check(fn: Callable[..., Any], seen: set[Any]) -> Iterator[Finding]:
    """The findings of one function, and of the functions of its own module that it calls."""
    code = getattr(fn, "__code__", None)
    if code is None or code in seen:
        return
    seen.add(code)
    try:
        lines, first = inspect.getsourcelines(fn)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        return
    names = _Names(fn)
    visitor = _Visitor(names, code.co_filename, first - 1)
    visitor.visit(tree)
    yield from visitor.found
    for called in visitor.called:
        if isinstance(called, FunctionType) and called.__module__ == fn.__module__:
            yield from _check(called, seen)


class _Names:
    """What the names in a function mean: closure, module, builtins; its own locals mean nothing that is known."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        variables = inspect.getclosurevars(fn) if isinstance(fn, FunctionType) else None
        self._nonlocals = dict(variables.nonlocals) if variables is not None else {}
        self.module: dict[str, Any] = getattr(fn, "__globals__", {})
        self._locals = set(getattr(fn, "__code__", _check.__code__).co_varnames)

    def resolve(self, node: ast.expr) -> Any:
        """The object that a name or attribute chain stands for; None when that is not known."""
        if isinstance(node, ast.Name):
            if node.id in self._nonlocals:
                return self._nonlocals[node.id]
            if node.id in self._locals:
                return None
            return self.module.get(node.id, getattr(builtins, node.id, None))
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            return getattr(owner, node.attr, None) if owner is not None else None
        return None


class _Visitor(ast.NodeVisitor):
    def __init__(self, names: _Names, file: str, offset: int) -> None:
        self._names = names
        self._file = file
        self._offset = offset
        self.found: list[Finding] = []
        self.called: list[Any] = []

    def report(self, node: ast.AST, message: str) -> None:
        self.found.append(Finding(self._file, self._offset + getattr(node, "lineno", 1), message))

    def visit_Call(self, node: ast.Call) -> None:  # ast's own names
        target = self._names.resolve(node.func)
        if target is not None and not isinstance(target, Definition):
            self.called.append(target)
            advice = _advice(target)
            if advice is not None:
                self.report(node, f"{ast.unparse(node.func)}() is {advice}")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS and _is_shared(self._names, node.func):
            self.report(node, f"{ast.unparse(node.func)}() changes module state, which all runs share: keep it local")
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._check_order(node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._check_order(node.iter)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.report(node, f"global {', '.join(node.names)}: module state is shared by all runs and lost at a restart")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Subscript) and _is_shared(self._names, target):
                self.report(
                    node, f"{ast.unparse(target)} = … changes module state, which all runs share: keep it local"
                )
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        catches_all = node.type is None or self._names.resolve(node.type) is BaseException
        if catches_all and not any(isinstance(item, ast.Raise) for item in ast.walk(node)):
            self.report(node, "catches BaseException and does not raise it again: cancellation and eviction must pass")
        self.generic_visit(node)

    def _check_order(self, node: ast.expr) -> None:
        is_set = isinstance(node, (ast.Set, ast.SetComp)) or (
            isinstance(node, ast.Call) and self._names.resolve(node.func) in (set, frozenset)
        )
        if is_set:
            self.report(node, "the order of a set differs from process to process: iterate over sorted(…)")


_MUTATORS = {"append", "extend", "insert", "add", "update", "pop", "remove", "clear", "setdefault", "discard"}


def _is_shared(names: _Names, node: ast.Attribute | ast.Subscript) -> bool:
    owner = node.value
    return (
        isinstance(owner, ast.Name) and owner.id in names.module and isinstance(names.resolve(owner), (list, dict, set))
    )


def _advice(target: Any) -> str | None:
    """What is wrong with calling this object; None when nothing is known against it."""
    if target is builtins.open or target is builtins.input:
        return "I/O: do it in an activity"
    if target is asyncio.to_thread:
        return _ADVICE["threading"]
    name = getattr(target, "__qualname__", getattr(target, "__name__", ""))
    if name in _CLOCK_METHODS:
        return _ADVICE["time"]
    owner = getattr(target, "__self__", None)
    if isinstance(owner, random.Random) and type(owner) is random.Random:
        return _ADVICE["random"]
    module = str(getattr(target, "__module__", None) or getattr(owner, "__name__", "")).partition(".")[0]
    if f"{module}.{name}" in _ALLOWED:
        return None
    if module in ("posix", "os", "nt"):
        return "the machine: do it in an activity" if name in _OS_CALLS else None
    return _ADVICE.get(module)
