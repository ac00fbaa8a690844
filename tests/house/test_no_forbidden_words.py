"""Nothing in the repository ties it to one machine, and nothing in the package runs data as code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.repository import package_files, place, tracked_files

# In pieces, because this file is searched too.
REGISTRIES = [".".join(parts) for parts in [("pypi", "org"), ("registry", "npmjs"), ("files", "pythonhosted")]]
MACHINE_PATHS = r"(?<![\w./$}-])/(?:work|root|home/\w+|Users/\w+)/"
# Of modules: importing them. Of functions: naming them.
FORBIDDEN_MODULES = {"marshal", "pickle", "shelve"}
FORBIDDEN_FUNCTIONS = {"eval", "exec", "yaml.load"}

DANGEROUS = [
    "import pickle",
    "from pickle import loads",
    "import marshal as m",
    "def f():\n    import shelve",
    "eval('1')",
    "run = exec",
    "yaml.load(x)",
    "builtins.eval(x)",
]


def tracked_lines() -> Iterator[tuple[Path, int, str]]:
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # Not a text file.
        for number, line in enumerate(text.splitlines(), start=1):
            yield path, number, line


def places_of(pattern: str) -> list[str]:
    return [place(path, number) for path, number, line in tracked_lines() if re.search(pattern, line)]


def forbidden_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each forbidden import or function in Python source. Words in text are free."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                found = {alias.name.partition(".")[0] for alias in aliases} & FORBIDDEN_MODULES
            case ast.ImportFrom(module=str(module)):
                found = {module.partition(".")[0]} & FORBIDDEN_MODULES
            case ast.Name(id=name):
                found = {name} & FORBIDDEN_FUNCTIONS
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                found = {f"{owner}.{name}", name if owner == "builtins" else ""} & FORBIDDEN_FUNCTIONS
            case _:
                continue
        for name in found:
            yield node.lineno, name


def test_no_file_names_a_package_registry() -> None:
    assert places_of("|".join(map(re.escape, REGISTRIES))) == []


def test_no_file_holds_a_path_of_one_machine() -> None:
    assert places_of(MACHINE_PATHS) == []


@pytest.mark.parametrize(
    "line", ["cd /" + "work/main", 'open("/' + 'root/x")', "see /" + "home/ann/x", "/" + "Users/ann/y"]
)
def test_a_path_of_one_machine_is_recognised(line: str) -> None:
    assert re.search(MACHINE_PATHS, line)


@pytest.mark.parametrize("line", ["./work/queue", "https://example.com/work/", "src/root/x", "$HOME/work/x"])
def test_other_paths_are_left_alone(line: str) -> None:
    assert not re.search(MACHINE_PATHS, line)


def test_the_package_never_runs_data_as_code() -> None:
    found = [
        f"{place(path, line)} {name}"
        for path in package_files(".py")
        for line, name in forbidden_names(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("source", DANGEROUS)
def test_running_data_as_code_is_recognised(source: str) -> None:
    assert list(forbidden_names(source))


@pytest.mark.parametrize("source", ["'never pickle'", "create_subprocess_exec(x)", "re.compile(x)", "model.eval()"])
def test_harmless_words_are_left_alone(source: str) -> None:
    assert not list(forbidden_names(source))
