"""docs/reference.md tells the truth: each signature in it is the code's, and what authors use is there completely."""

import ast
import inspect
import re
import textwrap
from typing import get_args

import pytest

import derecho
from derecho.journal.events import AnyEvent
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))

COMPLETE = ["ActivityContext", "Context", "Handle", "Run", "Selector", "SignalChannel", "WorkflowInfo"]
"""What people write code against all day: everything public that these classes define is in their section."""


def signature(value: object) -> str:
    """Parameters and defaults as a reader writes them, without annotations and self."""
    found = inspect.signature(value)  # type: ignore[arg-type]  # only callables come here
    kept = [
        parameter.replace(annotation=parameter.empty)
        for parameter in found.parameters.values()
        if parameter.name not in ("self", "cls") and not parameter.name.startswith("_")
    ]
    text = str(found.replace(parameters=kept, return_annotation=found.empty))
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def normal(text: str) -> str:
    """The same, however it was spaced and quoted."""
    function = ast.parse(f"def f{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    return ast.unparse(function.args)


def signatures_in(name: str) -> dict[str, str]:
    """What the section of a public name says about it and its methods: name -> "(a, *, b=None)"."""
    section = SECTIONS[name]
    found = {}
    for block in re.findall(r"^```pyi\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL):
        for match in re.finditer(r"^@?(\w+)(\(.*?\))(?: -> \w+)?$", block, flags=re.MULTILINE | re.DOTALL):
            found[match[1]] = match[2]
    for line in re.findall(r"^\* .*$", section, flags=re.MULTILINE):
        for method, parameters in re.findall(r"`(\w+)(\([^`]*\))`", line):
            if hasattr(getattr(derecho, name), method):
                found[f"{name}.{method}"] = parameters
    return found


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_signatures_in_a_section_are_those_of_the_code(name: str) -> None:
    for place, told in signatures_in(name).items():
        owner, _, method = place.rpartition(".")
        value = getattr(getattr(derecho, owner), method) if owner else getattr(derecho, method)
        assert normal(told) == normal(signature(value)), place


def test_every_function_is_shown_with_its_signature() -> None:
    functions = {name for name in derecho.__all__ if inspect.isfunction(getattr(derecho, name))}
    assert {name for name in functions if name not in signatures_in(name)} == set()


@pytest.mark.parametrize("name", [name for name in COMPLETE if name in SECTIONS])
def test_what_authors_use_all_day_is_told_completely(name: str) -> None:
    cls = getattr(derecho, name)
    public = {member for base in cls.__mro__ if base.__module__.startswith("derecho") for member in vars(base)}
    missing = {member for member in public if not member.startswith("_")} - set(re.findall(r"\w+", SECTIONS[name]))
    assert missing - {"of"} == set()


def test_every_history_in_the_documentation_comes_back_as_it_was() -> None:
    page = (ROOT / "docs" / "history-format.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```jsonl\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert examples
    assert [derecho.History.loads(text).dumps() for text in examples] == examples


def test_every_type_of_event_is_told() -> None:
    page = (ROOT / "docs" / "history-format.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", page))
    assert {str(event.__struct_config__.tag) for event in get_args(AnyEvent)} - told == set()


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    [tree] = re.findall(r"^```text\n(DerechoError\n.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert textwrap.indent(tree, "    ") in (inspect.getdoc(derecho.errors) or "")
