"""`import derecho` is quick and needs the core install only: the rest is imported at the point of use."""

import json
import subprocess
import sys

import pytest

OPTIONAL = ["asyncpg", "attrs", "click", "google", "jinja2", "opentelemetry", "pydantic", "rich", "starlette"]
PROGRAM = "import json, sys; import derecho; print(json.dumps(sorted(sys.modules)))"


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The top-level names that a fresh interpreter holds after `import derecho`."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    return {module.partition(".")[0] for module in json.loads(done.stdout)}


@pytest.mark.parametrize("module", OPTIONAL)
def test_importing_derecho_does_not_import(module: str, imported: set[str]) -> None:
    assert "derecho" in imported
    assert module not in imported
