"""The public API is a list: `derecho.__all__`, which `docs/reference.md` documents name by name."""

import inspect
import re

import derecho
from tests.house.repository import ROOT

REFERENCE = ROOT / "docs" / "reference.md"


def documented_names() -> list[str]:
    """The names that have a heading ``### `name` `` in the reference."""
    text = REFERENCE.read_text() if REFERENCE.exists() else ""
    return re.findall(r"^### `(\w+)`", text, flags=re.MULTILINE)


def is_explained(name: str) -> bool:
    """Functions, classes and modules carry a docstring of their own; a constant or type alias cannot."""
    value = getattr(derecho, name)
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return True
    text = value.__doc__ or ""
    # Dataclasses and named tuples without a docstring get their signature for one.
    return bool(text.strip()) and not text.startswith(f"{name}(")


def test_the_list_has_no_name_twice() -> None:
    assert len(derecho.__all__) == len(set(derecho.__all__))
    assert len(documented_names()) == len(set(documented_names()))


def test_every_public_name_is_documented_and_nothing_else() -> None:
    public, documented = set(derecho.__all__), set(documented_names())
    assert public - documented == set(), "in derecho.__all__ without a heading in docs/reference.md"
    assert documented - public == set(), "in docs/reference.md but not in derecho.__all__"


def test_every_public_name_exists() -> None:
    assert [name for name in derecho.__all__ if not hasattr(derecho, name)] == []


def test_the_package_knows_its_version() -> None:
    assert f'\nversion = "{derecho.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in derecho.__all__ if not is_explained(name)] == []
