"""Each file is read in one sitting, each function at one glance, and the core in an afternoon."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.house.repository import PACKAGE, package_files, place

LINES_OF_A_FILE = 400
LINES_OF_THE_CORE = 10_000
STATEMENTS_OF_A_FUNCTION = 40
CORE = {"journal", "runtime", "stores", "engine", "workflow", "activity", "client", "errors", "clock"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def belongs_to_the_core(path: Path) -> bool:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py") in CORE


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function below `tree` with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            name = f"{prefix}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, prefix)


def statement_count(node: ast.AST) -> int:
    """The statements of a body. A docstring is none, a nested definition is one: its body counts for itself."""
    count = 0
    for child in ast.iter_child_nodes(node):
        docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        count += isinstance(child, ast.stmt) and not docstring
        if not isinstance(child, Function | ast.ClassDef):
            count += statement_count(child)
    return count


def test_a_file_has_at_most_400_lines() -> None:
    long = [
        f"{place(path, 1)} has {lines}"
        for path in package_files(".py", ".sql")
        if (lines := line_count(path)) > LINES_OF_A_FILE
    ]
    assert not long, f"more than {LINES_OF_A_FILE} lines, so more than one idea: " + "; ".join(long)


def code_lines(path: Path) -> int:
    """Lines that hold code or SQL: blank lines, comments and docstrings cost a reader no effort, they save it."""
    text = path.read_text()
    if path.suffix == ".sql":
        return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("--"))
    prose = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for number in range(token.start[0], token.end[0] + 1)
    }
    return len(code - prose)


def test_the_core_has_at_most_10_000_lines_of_code() -> None:
    lines = sum(code_lines(path) for path in package_files(".py", ".sql") if belongs_to_the_core(path))
    assert lines <= LINES_OF_THE_CORE, f"the core has {lines} lines of code, {lines - LINES_OF_THE_CORE} too many"


def test_a_function_has_at_most_40_statements() -> None:
    long = [
        f"{place(path, node.lineno)} {name} has {count}"
        for path in package_files(".py")
        for name, node in functions(ast.parse(path.read_text()))
        if (count := statement_count(node)) > STATEMENTS_OF_A_FUNCTION
    ]
    assert not long, f"more than {STATEMENTS_OF_A_FUNCTION} statements: " + "; ".join(long)


def test_statements_are_counted_as_the_rule_says() -> None:
    source = '''
class Thing:
    def outer(self):
        """Not a statement."""
        if self:
            return 1
        else:
            for _ in self:
                pass
        def inner():
            a = 1
            return a
        match self:
            case 1:
                return inner
        try:
            return 2
        except ValueError:
            raise
'''
    counts = {name: statement_count(node) for name, node in functions(ast.parse(source))}
    # if, return, for, pass, def, match, return, try, return, raise
    assert counts == {"Thing.outer": 10, "Thing.outer.inner": 2}
