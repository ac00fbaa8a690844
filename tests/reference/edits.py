"""Edits of workflow code: every statement that awaits something is deleted, doubled, or asks for something else."""

import ast
import copy
import types
from collections.abc import Iterator

from derecho.workflow import WorkflowDefinition
from tests.reference import workflows

OTHER = {"reserve": "ship", "ship": "reserve", "undo": "notify", "notify": "undo"}
"""Activities that take the same arguments."""


def edits() -> Iterator[tuple[str, str, WorkflowDefinition]]:
    """What was done to which line of which workflow, and the workflow as it is then."""
    with open(workflows.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for name in workflows.REFERENCE:
        for number, body in enumerate(_bodies(tree, name)):
            for place, statement in enumerate(body):
                for how in ("delete", "double", "replace") if _asks(statement) else ():
                    if how == "double" and "id=reader.id" in ast.unparse(statement):
                        continue  # it always raises, so what stands behind it is never reached
                    edited = copy.deepcopy(tree)
                    if _edit(_bodies(edited, name)[number], place, how):
                        yield f"{how} line {statement.lineno}", name, _load(edited)[name]


def _bodies(tree: ast.Module, name: str) -> list[list[ast.stmt]]:
    """Every block of statements inside a workflow."""
    [code] = [node for node in tree.body if isinstance(node, ast.AsyncFunctionDef) and node.name == name]
    blocks = (getattr(node, "body", None) for node in ast.walk(code))
    return [block for block in blocks if isinstance(block, list)]


def _edit(body: list[ast.stmt], place: int, how: str) -> bool:
    """False when this cannot be done to the statement."""
    statement = body[place]
    if how == "delete":
        if isinstance(statement, ast.Assign):
            return False  # what follows would only miss a name
        body[place] = ast.copy_location(ast.Pass(), statement)
    elif how == "double":
        body.insert(place, copy.deepcopy(statement))
    else:
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in OTHER]
        for name in names:
            name.id = OTHER[name.id]
        return bool(names)
    return True


def _asks(statement: ast.stmt) -> bool:
    """Whether it is simple and awaits a call to which `ctx` is handed, or one of its methods."""
    if not isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign):
        return False
    awaited = [node.value for node in ast.walk(statement) if isinstance(node, ast.Await)]
    return any(
        isinstance(node, ast.Name) and node.id == "ctx"
        for call in awaited
        if isinstance(call, ast.Call)
        for node in [*call.args, getattr(call.func, "value", None)]
    )


def _load(tree: ast.Module) -> dict[str, WorkflowDefinition]:
    module = types.ModuleType(workflows.__name__)
    module.__file__ = workflows.__file__
    exec(compile(tree, workflows.__file__, "exec"), module.__dict__)
    found: dict[str, WorkflowDefinition] = module.REFERENCE
    return found
