"""Documentation runs: every Python block in README.md and docs/ is executed, every relative link leads somewhere.

The blocks of one page are one module and share its names. An `async def main()` is run once its block has been read,
and so are the tests of docs/testing.md, with the fixture `derecho_env`.
What a block prints is compared with its `#>` comments, if it has any. Words behind the fence's `python` change that:

    notest              not executed; there are few of these
    from FILE           a quotation: its lines stand in FILE, one behind the other
"""

import asyncio
import inspect
import re
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import pytest

from derecho.testing import Environment
from tests.docs.pages import PACKAGE, ROOT, Block, Page, pages

MOST_NOTEST = 3
SECONDS_OF_A_BLOCK = 20.0

ALL = pages()


def run(block: Block, page: Page, module: types.ModuleType) -> None:
    """Execute a block as lines of its page, so that a traceback leads there."""
    before = module.__dict__.pop("main", None)
    padding = "\n" * (block.line - 1)
    exec(compile(padding + block.text, str(page.path), "exec"), module.__dict__)
    main = module.__dict__.setdefault("main", before)
    if main is not before and inspect.iscoroutinefunction(main):
        asyncio.run(asyncio.wait_for(main(), SECONDS_OF_A_BLOCK))
    for name in re.findall(r"^(?:async )?def (test_\w+)", block.text, flags=re.MULTILINE):
        if page.name == "docs/testing.md":  # elsewhere a page may show how one fails
            run_test(getattr(module, name))
    for name in re.findall(r"^class (\w+)\(unittest\.", block.text, flags=re.MULTILINE):
        result = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, name)).run(unittest.TestResult())
        assert result is not None
        assert (result.testsRun, result.errors, result.failures) == (1, [], [])


def run_test(test: Any) -> None:
    """What pytest does with a test of a page."""

    async def in_environment() -> None:
        async with Environment() as env:
            await asyncio.wait_for(test(env), SECONDS_OF_A_BLOCK)

    if inspect.iscoroutinefunction(test):
        asyncio.run(in_environment())
    elif not inspect.signature(test).parameters:
        test()


def promised_output(block: Block) -> list[str]:
    return re.findall(r"#> ?(.*)$", block.text, flags=re.MULTILINE)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An empty module, which errors and annotations can find by its name, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("page", [page for page in ALL if page.python], ids=lambda page: page.name)
def test_every_python_block_of_a_page_runs_and_prints_what_it_says(
    page: Page, module: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in page.python:
        if block.info[1:] == ["notest"] or block.info[1:2] == ["from"]:
            continue
        run(block, page, module)
        printed = capsys.readouterr().out.splitlines()
        if promised := promised_output(block):
            assert printed == promised, f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_every_quotation_stands_in_its_file(page: Page) -> None:
    for block in page.python:
        match block.info[1:]:
            case ["from", name]:
                assert block.text in (ROOT / name).read_text(), f"{page.name}:{block.line} is not in {name}"
            case [] | ["notest"]:
                pass
            case words:
                pytest.fail(f"{page.name}:{block.line}: nobody knows what `{' '.join(words)}` means")


def test_few_blocks_are_not_executed() -> None:
    kept_back = [f"{page.name}:{block.line}" for page in ALL for block in page.python if "notest" in block.info]
    assert len(kept_back) <= MOST_NOTEST, kept_back


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    known = {other.path: other for other in ALL}
    broken = []
    for link in page.links:
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        if not path.exists() or (anchor and path in known and anchor not in known[path].anchors):
            broken.append(link)
    assert not broken, f"{page.name} has links that lead nowhere: {broken}"


def test_every_test_that_a_page_names_exists() -> None:
    defined = {
        name
        for path in [*(ROOT / "tests").rglob("test_*.py"), *(PACKAGE / "testing").rglob("*.py")]
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    named = {(page.name, name) for page in ALL for name in re.findall(r"`(test_\w+)`", page.prose)}
    assert {f"{page}: {name}" for page, name in named if name not in defined} == set()


def test_the_route_through_the_code_passes_every_module() -> None:
    """But for those of single databases, which are the memory store's in another language."""
    route = (ROOT / "docs" / "reading-the-code.md").read_text(encoding="utf-8")
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    named = set(re.findall(r"`(\w+\.py)`", route))
    known = {path.name for path in modules}
    aside = {"testing", "stores/sqlite", "stores/postgres"}
    missed = {str(path) for path in modules if path.name not in named and not aside & {str(p) for p in path.parents}}
    assert missed == set(), "docs/reading-the-code.md"
    assert named - known == set(), "docs/reading-the-code.md names modules that do not exist"
