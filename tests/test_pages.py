"""README and the manual are as they should be: links, lengths, figures, the same in both
languages."""

import re
import textwrap

import pytest

from tests.conftest import ROOT, compose_config
from tests.tools.pages import (
    COMMANDS,
    FENCED,
    MANUAL,
    PAGES,
    READMES,
    anchors,
    blocks,
    commands,
    files,
    links,
    prose,
    text_of,
)


@pytest.mark.parametrize("page", READMES)
def test_the_code_it_quotes_is_that_of_the_source(page):
    quoted = blocks(page, "py")
    assert len(quoted) == 2
    for block, form in zip(quoted, ("scratch", "concise"), strict=True):
        assert textwrap.indent(block, "    ") in (ROOT / f"src/models/{form}.py").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_pictures_and_files_that_a_page_names_are_there(page):
    assert links(page)
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for path in re.findall(r"`((?:src|conf|tests|docs)/[\w./]+)`", prose(page)):
        assert (ROOT / path).exists(), path


def test_readme_leads_to_every_page_and_every_page_back():
    for page in MANUAL:
        assert page in [link.partition("#")[0] for link in links("README.md")]
        assert text_of(page).endswith("\n[All pages](../README.md#commands)\n")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short(page):
    lines = text_of(page).splitlines()
    assert len(lines) <= (160 if page in READMES else 130)
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


@pytest.mark.parametrize("page", MANUAL)
def test_a_page_starts_with_its_command_and_shows_what_comes_of_it(page):
    language, _ = FENCED.findall(text_of(page))[0]
    assert language == "bash"
    assert blocks(page, "") or "![" in text_of(page) or files(page) or "\n| " in text_of(page)


def test_both_readmes_have_the_same_commands_links_pictures_and_figures():
    first, second = (
        (
            commands(page),
            [link for link in links(page) if link not in READMES],
            sorted(re.findall(r"\d[\d.,]*\d|\d", re.sub(r"\(.*?\.md.*?\)", "", prose(page)))),
            text_of(page).count("\n## "),
            [re.findall(r"^\W*([\w*.]+)", block, re.MULTILINE) for block in blocks(page, "")],
        )
        for page in READMES
    )
    assert second == first
    assert len(COMMANDS) > 50


def test_the_layout_is_that_of_the_folders():
    (layout,) = (block for block in blocks("README.md", "") if block.startswith("conf/"))
    rooms = re.findall(r"── (\w+)/", layout)
    assert sorted(rooms) == sorted(path.parent.name for path in ROOT.glob("src/*/__init__.py"))
    named = re.findall(r"\w+", re.search(r"\*\.py(.*)", layout)[1])
    for path in ROOT.glob("src/*.py"):
        assert path.stem in (*named, "__init__"), path


# What stands in several places: the patterns find all of them, and one value.
SAME = {
    "accuracy of the best experiment": [
        r"\| `experiment=best` \| (0\.\d+ \(0\.\d+ to 0\.\d+)",
        r"\| best +\| .*?test/acc (0\.\d+ \(0\.\d+ to 0\.\d+)",
        r"test accuracy is (0\.\d+ \(0\.\d+ to 0\.\d+)",
    ],
    "published accuracy": [
        r"best published one has (0\.\d+)",
        r"best published linear model: (0\.\d+)",
    ],
    "sampling error": [r"sampling error of about ([\d.]+) points"],
    "last epoch of the first run": [r"epoch 20/20  (.*)"],
    "its test accuracy": [r"\| test  \| (0\.8332) ", r"\| A   \| 0\.1 .*?\| (0\.8\d+)   \| 20 "],
    "validation split": [r"holds out ([\d,]+) images", r"training images ([\d,]+) are held"],
    "agreement with the plain loop": [
        r"within (1e-\d+)\.\s+A run",
        r"weights agree within (1e-\d+)",
    ],
    "runs killed": [
        r"tests\.tools\.faults (\d+)",
        r"(\d+) of \d+ were identical",
        r"\d+ of (\d+) were identical",
    ],
}


@pytest.mark.parametrize("what", SAME)
def test_a_figure_is_the_same_wherever_it_stands(what):
    everything = "\n".join(text_of(page) for page in ("README.md", *MANUAL))
    found = [re.findall(pattern, everything) for pattern in SAME[what]]
    assert all(found)
    assert sum(map(len, found)) > 1
    assert len({value for values in found for value in values}) == 1, found


def test_figures_that_follow_from_others():
    resume, results, questions = (
        " ".join(text_of(f"docs/{name}.md").split()) for name in ("resume", "results", "questions")
    )
    kills = [
        int(number)
        for number in re.findall(r"\| (?:Ctrl-C, once or twice|SIG\w+) \| (\d+) ", resume)
    ]
    assert f"There were {sum(kills)} kills" in resume
    found = {}
    for experiment in ("overfit", "overfit_fixed"):
        gap, val = re.search(
            rf"\| {experiment} \| .*? gap ([\d.]+); last val/loss ([\d.]+)", results
        ).groups()
        found[experiment] = f"{float(val) - float(gap):.2f}", f"{float(val):.2f}"
    (train, val), both = found["overfit"], " and ".join(found["overfit_fixed"])
    assert (
        f"the training loss is {train}. The validation loss, 0.81 at its lowest, is {val}"
        in questions
    )
    assert f"after 92 epochs with {both}" in questions


def test_settings_are_quoted_as_they_are():
    best, overfit = (compose_config("train", f"experiment={name}") for name in ("best", "overfit"))
    results, questions = (text_of(f"docs/{name}.md") for name in ("results", "questions"))
    assert (
        f"lr\n{best.model.lr} × {best.model.gamma}^epoch, {best.trainer.max_epochs} epochs"
        in results
    )
    assert (
        f"{overfit.data.train_size} images by heart. After {overfit.trainer.max_epochs} epochs"
        in questions
    )
    assert f"{60_000 - best.data.val_size:,} images train the model" in text_of("README.md")
    assert f"{best.data.val_size:,} images for validation" in results
