"""The pages of the documentation: their code blocks, headings and links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "derecho"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^ *```")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: the words behind its fence, the line in the page where its text begins, its text."""

    info: list[str]
    line: int
    text: str


class Page:
    """One Markdown file, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.blocks: list[Block] = []
        prose: list[str] = []
        fence: tuple[list[str], int] | None = None
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if not _FENCE.match(line):
                if fence is None:
                    prose.append(line)
            elif fence is None:
                fence = line.strip(" `").split(), number + 1
            else:
                info, first = fence
                self.blocks.append(Block(info, first, "\n".join(lines[first - 1 : number - 1]) + "\n"))
                fence = None
        assert fence is None, f"{self.name}: the block that begins at line {fence and fence[1]} has no end"
        self.prose = "\n".join(prose)

    @property
    def python(self) -> list[Block]:
        return [block for block in self.blocks if block.info[:1] == ["python"]]

    @property
    def anchors(self) -> set[str]:
        """Its headings as a link names them; the second of one name is name-1."""
        found: set[str] = set()
        for title in re.findall(r"^#+ +(.+?) *$", self.prose, flags=re.MULTILINE):
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            count = 0
            while (name := f"{anchor}-{count}" if count else anchor) in found:
                count += 1
            found.add(name)
        return found

    @property
    def links(self) -> list[str]:
        """Where its relative links lead, as written."""
        return [link for link in _LINK.findall(self.prose) if not re.match(r"[a-z]+:", link)]


def pages() -> list[Page]:
    return [Page(path) for path in PAGES]
