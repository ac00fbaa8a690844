"""Recorded histories against today's code: the test that a change under running workflows is safe."""

import glob
from collections.abc import Iterator
from pathlib import Path

from derecho.errors import NondeterminismError, PayloadError
from derecho.history import History
from derecho.isolation import replay_elsewhere
from derecho.journal.payloads import Codec
from derecho.replay import replay_history
from derecho.workflow import WorkflowDefinition


def replay(
    workflow: WorkflowDefinition, history: History | str, *, codec: Codec | None = None, isolated: bool = False
) -> None:
    """Replay a history (or the histories in a file, or in all files of a glob) against a workflow's code.

    Complete and open histories alike. With `isolated` also in another process with another hash seed, which finds the
    code by its module and name. All histories of a glob are tried; the first that fails is raised, the others are in
    its notes.

    Raises NondeterminismError with both source lines when they differ, PayloadError for what cannot be read, and
    FileNotFoundError when a path or glob names nothing.
    """
    histories = [("", history)] if isinstance(history, History) else list(_read(history))
    failures: list[NondeterminismError | PayloadError] = []
    for path, item in histories:
        try:
            replay_history(workflow, item, codec=codec)
        except (NondeterminismError, PayloadError) as exc:
            _say_where(exc, path, item, workflow)
            failures.append(exc)
    if not failures and isolated:
        failures = list(_replay_elsewhere(workflow, histories, codec))
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"also: {str(other).splitlines()[0]} ({other.__notes__[-1]})")
        raise failures[0]


def _read(pattern: str) -> Iterator[tuple[str, History]]:
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise FileNotFoundError(f"no history file matches {pattern!r}")
    for path in paths:
        yield path, History.loads(Path(path).read_text(encoding="utf-8"))


def _replay_elsewhere(
    workflow: WorkflowDefinition, histories: list[tuple[str, History]], codec: Codec | None
) -> Iterator[NondeterminismError]:
    reports = replay_elsewhere(workflow, [history for _, history in histories], codec)
    for (path, history), report in zip(histories, reports, strict=True):
        if report.verdict != "safe":
            error = NondeterminismError(report.reason)
            for note in report.notes:
                error.add_note(note)
            error.add_note("in another process with another hash seed; in this one it replays")
            _say_where(error, path, history, workflow)
            yield error


def _say_where(error: BaseException, path: str, history: History, workflow: WorkflowDefinition) -> None:
    if history.workflow_type and history.workflow_type != workflow.name:
        error.add_note(f"the history is of workflow type {history.workflow_type!r}, the code of {workflow.name!r}")
    source = f" ({path})" if path else ""
    error.add_note(f"while replaying run {history.run_id} of workflow {history.workflow_id!r}{source}")
