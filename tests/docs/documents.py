"""The pages of the documentation: their blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "ROOT", "Block", "Page", "page"]

ROOT = Path(__file__).resolve().parent.parent.parent
#: Every page, by its path from the root of the repository.
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("**/*.md"))]


@dataclass(eq=False)
class Block:
    """A fenced block: where it is, and whether a test has run it."""

    page: str
    line: int
    language: str
    text: str
    #: The headings that it is under, the outermost first.
    headings: tuple[str, ...]
    #: The last line of text above it.
    lead: str
    ran: bool = field(default=False, repr=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that its first line names, or nothing."""
        found = re.match(r"# ([\w/]+\.py)\n", self.text)
        return found[1] if found else ""

    def run(self, names: dict[str, Any]) -> dict[str, Any]:
        """Execute it with these names and those that it adds. What fails in it is shown with its line on the page."""
        self.ran = True
        exec(compile("\n" * self.line + self.text, str(ROOT / self.page), "exec", dont_inherit=True), names)
        return names


@dataclass(frozen=True, eq=False)
class Page:
    """A page, read."""

    path: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def prose(self) -> str:
        """The page without its blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)

    @property
    def headings(self) -> list[str]:
        return re.findall(r"^#+ (.+)$", self.prose, flags=re.MULTILINE)

    @property
    def anchors(self) -> set[str]:
        """As GitHub makes them of headings."""
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in self.headings}

    @property
    def links(self) -> list[str]:
        """Where its links and pictures point."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    def section(self, heading: str) -> str:
        """What stands below a heading of the second level."""
        return re.split(r"^## ", self.text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]

    def listed(self, heading: str, column: int = 1) -> list[str]:
        """The names in a column of the tables of a section, in the order of the page."""
        rows = re.findall(r"^\|(?! ?-)(.+)\|$", self.section(heading), flags=re.MULTILINE)
        return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[column - 1])]

    def blocks(self) -> Iterator[Block]:
        """Each of them anew."""
        headings: dict[int, str] = {}
        lead, fence, content = "", None, []
        for number, line in enumerate(self.lines, 1):
            if fence is not None:
                if line != "```":
                    content.append(line)
                    continue
                start, language = fence
                text = "\n".join(content) + "\n"
                yield Block(self.path, start, language, text, tuple(headings.values()), lead)
                fence, content = None, []
            elif line.startswith("```"):
                fence = (number, line.removeprefix("```"))
            elif found := re.match(r"(#+) (.+)", line):
                headings = {level: text for level, text in headings.items() if level < len(found[1])}
                headings[len(found[1])] = found[2]
            elif line:
                lead = line


@cache
def page(path: str) -> Page:
    return Page(path, (ROOT / path).read_text(encoding="utf-8"))
