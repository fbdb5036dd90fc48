"""README and the pages of the manual, read: their commands, files, links and headings."""

import re
from pathlib import Path

from tests.conftest import ROOT

READMES = ["README.md", "README.zh-CN.md"]
MANUAL = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))
PAGES = [*READMES, *MANUAL]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return [block for found, block in FENCED.findall(text_of(page)) if found == language]


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return FENCED.sub("", text_of(page))


def commands(page: str) -> list[str]:
    """Its commands, of blocks and within the text, without comments, each on one line."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:python -m|make|sdiff) [^`]+)`", prose(page))
    return [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in lines]


def files(page: str) -> dict[str, str]:
    """The files it gives, by the path in their first line."""
    given = [
        block
        for language in ("python", "yaml")
        for block in blocks(page, language)
        if block.startswith("# ")
    ]
    return {block.split("\n", 1)[0][2:]: block.split("\n", 1)[1] for block in given}


def links(page: str) -> list[str]:
    """Where its links to other files, to pictures and to headings lead."""
    return re.findall(r"\]\((?!https?://)([^)]+)\)", prose(page))


def anchors(page: Path) -> list[str]:
    """What the headings are called in links to them."""
    headings = re.findall(r"^#+ (.*)", FENCED.sub("", page.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


COMMANDS = [*dict.fromkeys(text for page in ("README.md", *MANUAL) for text in commands(page))]
