"""The pages of the documentation hang together. That they run is for the build of the site."""

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if not {"_build", "jupyter_execute"} & set(path.relative_to(DOCS).parts)
)
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def listed():
    """Every page that a toctree names, relative to the root of the pages."""
    found = []
    for page in PAGES:
        for body in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
            names = [line.strip() for line in body.splitlines() if line.strip()]
            parent = Path(page).parent
            found += [(parent / f"{x}.md").as_posix() for x in names if not x.startswith(":")]
    return found


def test_every_page_is_in_one_toctree():
    assert sorted([*listed(), "index.md"]) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_code_cells_parse(page):
    for cell in CELL.findall((DOCS / page).read_text()):
        ast.parse(re.sub(r"^:.*\n", "", cell, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_pages_with_cells_are_executed_without_progress_bars(page):
    """A page whose header is missing shows its cells as they are, and nobody notices."""
    text = (DOCS / page).read_text()
    if "```{code-cell}" not in text:
        pytest.skip("no code")
    assert text.startswith("---\nfile_format: mystnb\n")
    if "OneStepInference(" in "".join(CELL.findall(text)):
        assert 'os.environ["CI"] = "true"' in text


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_to_files_exist(page):
    text = re.sub(r"```.*?```", "", (DOCS / page).read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            assert (DOCS / page).parent.joinpath(link).exists(), link
