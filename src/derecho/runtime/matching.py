"""History against code, command by command.

Replaying one workflow task, every command that the code asks for must be the next recorded one, by kind and identity;
at the end none may be left over. Both sides are reported with their source lines.
"""

from collections.abc import Sequence

from derecho.errors import NondeterminismError
from derecho.journal.events import CommandEvent, PatchMarked, kind


class Matcher:
    """The recorded commands of one workflow task, handed out in order. `first` is the event id of the first."""

    def __init__(self, recorded: Sequence[CommandEvent], first: int, task: int, run: str) -> None:
        self._recorded = recorded
        self._first = first
        self._next = 0
        self._task = task
        self._run = run

    def match(self, command: CommandEvent) -> tuple[int, CommandEvent]:
        """Position and recorded form of a requested command; raises NondeterminismError when they differ."""
        if isinstance(command, PatchMarked) and (marker := self._marker(command.change)) is not None:
            return marker, command
        self._skip_markers()
        if self._next >= len(self._recorded):
            raise NondeterminismError(
                f"{self._run}: at workflow task {self._task} the code asks for more than history has.\n"
                f"  recorded   nothing more in this task\n"
                f"  requested  {describe(command)}\n"
                "Was a call added before the point that this run had reached? Guard it: if ctx.patched('…'): …"
            )
        recorded = self._recorded[self._next]
        if type(recorded) is not type(command) or recorded.identity() != command.identity():
            raise NondeterminismError(
                f"{self._run}: the code no longer does what history records at event {self._first + self._next}.\n"
                f"  recorded   {describe(recorded)}\n"
                f"  requested  {describe(command)}\n"
                f"{self._advice(recorded, command)}"
            )
        self._next += 1
        return self._next - 1, recorded

    def has_patch(self, change: str) -> bool:
        """Whether this task has the marker of `change`, wherever the code comes by it now."""
        return self._marker(change) is not None

    def finish(self) -> None:
        """Raise NondeterminismError when recorded commands were not asked for."""
        self._skip_markers()
        if self._next < len(self._recorded):
            recorded = self._recorded[self._next]
            raise NondeterminismError(
                f"{self._run}: at workflow task {self._task} the code does not ask for what history records at event "
                f"{self._first + self._next}.\n"
                f"  recorded   {describe(recorded)}\n"
                f"  requested  nothing\n"
                "Was a call removed, or a condition changed? Guard the change: if not ctx.patched('…'): old call"
            )

    def _marker(self, change: str) -> int | None:
        for position, item in enumerate(self._recorded):
            if isinstance(item, PatchMarked) and item.change == change:
                return position
        return None

    def _skip_markers(self) -> None:
        """Patch markers have no order, and one that newer code does not ask for can simply have been deleted."""
        while self._next < len(self._recorded) and isinstance(self._recorded[self._next], PatchMarked):
            self._next += 1

    def _advice(self, recorded: CommandEvent, command: CommandEvent) -> str:
        later = [(type(item), item.identity()) for item in self._recorded[self._next + 1 :]]
        if (type(command), command.identity()) in later:
            return (
                "The recorded call was removed, or the order was changed. Guard it: if not ctx.patched('…'): old call"
            )
        if type(recorded) is type(command):
            return "It was renamed or replaced. Keep the old name, or guard the change with ctx.patched('…')"
        return "A call was added, removed or moved. Guard the change with ctx.patched('…')"


def describe(command: CommandEvent) -> str:
    """ "activity_scheduled 'charge' at app/orders.py:31"."""
    identity = " ".join(repr(part) for part in command.identity())
    source = getattr(command, "source", "")
    return " ".join(part for part in (kind(command), identity, f"at {source}" if source else "") if part)
