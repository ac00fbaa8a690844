"""The examples about activities say what they promise: heartbeats, processes, callbacks, transactions."""

import importlib
from pathlib import Path

import pytest

OUTPUT = {
    "heartbeats": ["attempt 1 begins at row 0", "attempt 2 begins at row 6", "10 rows"],
    "processes": [
        "the process of activity 'crash' died in attempt 2: killed by SIGSEGV",
        "stopped by start_to_close",
        "and the rest goes on: [0, 1, 4, 9]",
    ],
    "callbacks": [
        "the second call: this callback was completed before, or its run no longer waits for it",
        "paid 120, reference B-1",
    ],
    "transactions": ["3 mugs left", "4 mugs too few", "3 in stock"],
}


@pytest.mark.parametrize("name", ["heartbeats", "processes", "callbacks"])
async def test_an_example_prints_what_it_promises(
    name: str, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example = importlib.import_module(name)
    await example.main(store_url)
    assert capsys.readouterr().out.splitlines() == OUTPUT[name]


async def test_the_example_of_transactions_prints_what_it_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await importlib.import_module("transactions").main(str(tmp_path / "stock.db"))
    assert capsys.readouterr().out.splitlines() == OUTPUT["transactions"]
