"""Where the demo speaks: a live display where there is a terminal and rich is installed, plain lines elsewhere.

Both say the same. What is said stays; what is live is drawn again and again below it, or told once a second.
"""

import asyncio
import sys
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from shop.ledger import LedgerReader

if TYPE_CHECKING:
    from crashtest.drive import Show

BAR = 40


class Screen(Protocol):
    def say(self, text: str, *, at: float | None = None, style: str = "") -> None:
        """One line for good; `at` is the time since the beginning."""

    async def follow(self, show: "Show", reader: LedgerReader) -> None:
        """Show how it goes, until cancelled."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_screen() -> Screen:
    if sys.stdout.isatty():
        try:
            return RichScreen()
        except ImportError:
            pass
    return PlainScreen()


def stamped(text: str, at: float | None) -> str:
    return text if at is None else f"{at:7.2f} s  {text}"


class PlainScreen:
    """For pipes, logs and a core install."""

    def __init__(self) -> None:
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace", line_buffering=True)

    def say(self, text: str, *, at: float | None = None, style: str = "") -> None:
        print(stamped(text, at))

    async def follow(self, show: "Show", reader: LedgerReader) -> None:
        while True:
            await asyncio.sleep(1)
            calls, repeats, failures = reader.counts()
            done = f"{len(show.outcomes)} of {len(show.entries)} orders done"
            self.say(f"  {done}, {calls} calls, {repeats} repeated, {failures} answered 503", at=show.elapsed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RichScreen:
    """For people at a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def say(self, text: str, *, at: float | None = None, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(stamped(text, at), style=style))

    async def follow(self, show: "Show", reader: LedgerReader) -> None:
        from rich.text import Text

        try:
            while True:
                self._live.update(Text.from_markup("\n".join(live_lines(show, reader.counts()))), refresh=True)
                await asyncio.sleep(0.1)
        finally:
            self._live.update(Text(""), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()


def live_lines(show: "Show", counts: tuple[int, int, int]) -> list[str]:
    """The state of the show in a few lines of rich markup."""
    done, total = len(show.outcomes), len(show.entries)
    by_status = Counter(getattr(outcome, "status", "failed") for outcome in show.outcomes.values())
    filled = BAR * done // total
    started = BAR * len(show.handles) // total
    bar = f"[green]{'█' * filled}[/][yellow]{'█' * (started - filled)}[/][dim]{'░' * (BAR - started)}[/]"
    calls, repeats, failures = counts
    worker = show.worker
    alive = f"pid {worker.pid}, at work" if worker and worker.is_alive else "[bold red]dead[/]"
    return [
        "",
        f"  orders   {bar}  [bold]{done}[/] of {total} done, [yellow]{len(show.handles) - done}[/] in flight",
        f"           {by_status['shipped']} shipped, {by_status['rejected']} rejected, {len(show.reviewed)} reviewed",
        f"  shop     {calls} calls, {repeats} repeated with the same key, {failures} answered 503",
        f"  worker   {len(show.kills) + 1} of {show.kills_wanted + 1}: {alive}, {len(show.kills)} killed so far",
    ]
