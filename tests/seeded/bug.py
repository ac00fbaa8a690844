"""What a seeded bug is."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """In a file of `src/derecho`, the only place where `old` stands says `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Bug:
    """One way to get the engine wrong.

    Args:
        breaks: the guarantee that does not hold any more.
        tests: "file::test" of those that must notice, relative to `tests`; each test's name is looked for in the file.
    """

    name: str
    says: str
    breaks: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    def sow(self, package: Path) -> dict[Path, str]:
        """Change the files below `package`; gives what they said before. Raises ValueError when it does not apply."""
        after = self.would_change(package)
        before = {path: path.read_text(encoding="utf-8") for path in after}
        for path, text in after.items():
            path.write_text(text, encoding="utf-8")
        return before

    def would_change(self, package: Path) -> dict[Path, str]:
        """What the files would say. Raises ValueError when an edit does not apply."""
        after: dict[Path, str] = {}
        for edit in self.edits:
            path = package / edit.file
            text = after.get(path) or path.read_text(encoding="utf-8")
            if text.count(edit.old) != 1:
                raise ValueError(
                    f"{self.name} no longer applies: {edit.file} has {text.count(edit.old)} x {edit.old!r}"
                )
            after[path] = text.replace(edit.old, edit.new)
        return after
