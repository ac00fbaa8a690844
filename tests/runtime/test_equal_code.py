"""Functions of equal code in two files are equal to Python; they are not to us."""

import sys
from typing import Any

from derecho.closures import result_type
from derecho.runtime.source import caller_of

COPY = """
async def load() -> {kind}:
    return await fetch()

def where(tell):
    return tell()
"""


def functions_of(filename: str, kind: str = "int") -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(COPY.format(kind=kind), filename, "exec"), names)
    return names


def test_a_step_has_the_result_type_of_its_own_file() -> None:
    first, second = functions_of("/app/a.py", "int")["load"], functions_of("/app/b.py", "str")["load"]
    assert first.__code__ == second.__code__
    assert [result_type(first, None, "a step"), result_type(second, None, "a step")] == [int, str]


def test_a_command_names_the_line_of_its_own_file() -> None:
    def tell() -> str:
        return caller_of(sys._getframe(1))

    assert functions_of("/app/a.py")["where"](tell) == "app/a.py:6"
    assert functions_of("/app/b.py")["where"](tell) == "app/b.py:6"
