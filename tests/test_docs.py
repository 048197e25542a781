"""The documentation cannot drift: its tables are generated, and its commands, examples, links and paths are real."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from fuzz_fixture import sound_run

from benches import docs, suites
from benches.cli import main, parser
from benches.digits import card
from harness import suite
from harness.registry import BACKENDS, MODELS, built
from harness.types import AXES, STATUSES, Kind

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
CARD = "benches/digits/weights/README.md"
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "baselines/README.md", "benches/gpu_check/README.md", CARD)]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in (*PAGES, *OTHERS)}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)
COMMANDS = {"run", "report", "compare", "ab", "explain", "replay", "selftest", "baseline", "export", "show", "list"}


def prose(text: str) -> str:
    """A page without its code blocks and its generated tables."""
    return FENCE.sub("", docs.PLACE.sub("", text))


def documented_commands(text: str) -> list[str]:
    """Every `imgbench ...` of a page: lines of its shell blocks and indented blocks, and code within a sentence."""
    blocks = [body for language, body in FENCE.findall(text) if language in {"", "sh", "bash"}]
    indented = "\n".join(re.findall(r"^    (.+)$", prose(text), flags=re.MULTILINE))
    lines = "\n".join([*blocks, indented]).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(imgbench [^`]+)`", prose(text).replace("\n", " "))
    return [line.strip() for line in (*lines, *inline) if line.strip().startswith("imgbench ")]


def table(text: str, first_head: str) -> list[list[str]]:
    """The rows of the table whose first head is given, without backticks."""
    lines = text.split(f"| {first_head} |")[1].splitlines()[2:]
    rows = lines[: next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names(cells: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cells)


def test_the_readme_fits_on_a_page() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 130


def test_the_rows_of_the_readme_are_rows_of_the_whole_table() -> None:
    shown, whole = (
        re.findall(r"^    (digits_.+)$", TEXTS[page], re.MULTILINE) for page in ("README.md", "docs/quickstart.md")
    )
    assert len(shown) == 10
    assert set(shown) <= set(whole)
    assert len(whole) == len(suites.find("digits").cases) == 39
    assert "ten of its 39 rows" in TEXTS["README.md"]


def test_generated_tables_are_those_of_the_registries_and_the_parser() -> None:
    """In a process of its own, since the registries of this one hold planted entries, too."""
    done = subprocess.run([sys.executable, "-m", "benches.docs", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), f"run: python -m benches.docs\n{done.stdout}{done.stderr}"
    placed = [m["name"] for text in TEXTS.values() for m in docs.PLACE.finditer(text)]
    assert sorted(placed) == sorted(docs.TABLES), "each table is on one page"


def test_an_edited_table_is_out_of_date_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: exit_codes -->\n| 99 | fine |\n<!-- end of exit_codes -->\nby hand\n")
    ((_, text),) = docs.generated([page])
    assert "| 99 |" not in text
    assert "| 10 | regressed |" in text
    assert text.endswith("<!-- end of exit_codes -->\nby hand\n")
    page.write_text(text)
    assert list(docs.generated([page])) == [(page, text)]
    page.write_text("<!-- generated: nothing -->\n<!-- end of nothing -->\n")
    with pytest.raises(KeyError):
        list(docs.generated([page]))


def test_without_pages_nothing_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    assert docs.main() == 1
    assert "has no pages" in capsys.readouterr().err


def test_a_cell_keeps_the_table_whole() -> None:
    assert docs.table(("a", "b"), [("x|y\nz", None)]) == "| a | b |\n| --- | --- |\n| x\\|y z | – |\n"


@pytest.mark.parametrize("page", TEXTS)
def test_commands_shown_are_commands(page: str) -> None:
    for line in documented_commands(TEXTS[page]):
        words = shlex.split(line, comments=True)[1:]
        if not _names_a_command(words) and "./my_command.py" not in words:  # test_extending.py runs this example
            try:
                parser().parse_args(words)
            except SystemExit as ended:
                pytest.fail(f"{line} ends with {ended.code}")


def _names_a_command(words: list[str]) -> bool:
    """Whether the words are the name of a command alone, as in a sentence about it."""
    here = parser()
    for word in words:
        found = {name: inner for name, _, inner in docs.subcommands(here)}
        if word not in found:
            return False
        here = found[word]
    return True


def test_every_command_is_shown_with_its_arguments() -> None:
    shown = [shlex.split(line, comments=True)[1] for text in TEXTS.values() for line in documented_commands(text)]
    assert set(shown) >= COMMANDS
    sections = re.findall(r"^## imgbench (\w+)$", TEXTS["docs/commands.md"], flags=re.MULTILINE)
    assert [name for name, _, _ in docs.subcommands(parser())] == sections


def test_cheap_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that read a run, in a folder with one; those that list or plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGBENCH_BASELINES", str(tmp_path / "baselines"))
    sound_run(tmp_path / "runs" / "digits-20261127-101500", "digits-20261127-101500")
    lines = {line.partition("#")[0].strip() for text in TEXTS.values() for line in documented_commands(text)}
    cheap = [line for line in sorted(lines) if _is_cheap(shlex.split(line)[1:])]
    for line in cheap:
        assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    assert {shlex.split(line)[1] for line in cheap} == {"export", "show", "report", "baseline", "list", "run"}
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "benchmarks.json").is_file()
    assert list((tmp_path / "baselines").rglob("digits-20261127-101500.json"))


def _is_cheap(words: list[str]) -> bool:
    command, *rest = words
    return (
        (command in {"export", "show"} and rest[:1] == ["runs"])
        or (command == "report" and rest[:2] == ["runs", "--out"])
        or (command == "baseline" and (rest == ["list"] or rest[:2] == ["save", "runs"]))
        or (command == "list" and bool(rest) and rest[0] != "backends")
        or (command == "run" and "--dry-run" in rest)
    )


def test_make_targets_and_modules_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    whole = "\n".join(TEXTS.values())
    shown = set(re.findall(r"(?:^ *|`)make ([a-z-]+)", whole, flags=re.MULTILINE)) - {
        "gate"
    }  # the gate of ci.md is the user's
    assert shown >= {"bench", "test", "setup", "gpu-check"}
    assert shown <= targets
    modules = set(re.findall(r"python -m (benches[\w.]+)", whole))
    assert modules >= {"benches.digits.train", "benches.gpu_check"}
    assert [m for m in modules if importlib.util.find_spec(m) is None] == []
    options = set(re.findall(r"--imgbench-[a-z]+", whole))
    assert options
    assert [o for o in options if f'"{o}"' not in (ROOT / "benches" / "conftest.py").read_text()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_anchors_exist(page: str) -> None:
    own = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", FENCE.sub("", TEXTS[page])):
        other = own.parent / target if target else own
        assert other.exists(), target
        if anchor:
            assert anchor in [_anchor(heading) for heading in headings(other.read_text(encoding="utf-8"))], anchor


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)


def _anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [page for page in TEXTS if page.startswith("docs/")])
def test_github_and_mkdocs_show_a_page_alike(page: str) -> None:
    """MkDocs takes several dashes of an anchor as one, and knows no list or table right after a paragraph."""
    found = [_anchor(heading) for heading in headings(TEXTS[page])]
    assert [a for a in found if "--" in a] == []
    assert len(set(found)) == len(found), "a heading twice has other anchors in each of them"
    lines = FENCE.sub("", TEXTS[page]).splitlines()
    for before, line in pairwise(lines):
        item, table_row = re.match(r"(- |\d+\. )", line), line.startswith("|")
        if item and before:
            assert re.match(r"(- |\d+\. |  )", before), f"a list begins without a blank line: {line}"
        if table_row and before:
            assert before.startswith("|"), f"a table begins without a blank line: {line}"


def test_every_page_is_in_the_navigation_and_the_index() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    entries = [e if isinstance(e, str) else next(iter(e.values())) for e in site["nav"]]
    flat = [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]
    assert sorted(flat) == sorted(path.name for path in DOCS.glob("*.md"))
    for index in ("README.md", "docs/README.md"):
        assert [n for n in flat if n != "README.md" and f"{n})" not in TEXTS[index]] == []


def test_files_named_in_the_text_exist() -> None:
    pattern = r"`((?:harness|baselines|reports|benches|tests)/[\w./-]+)`"
    named = {path for text in TEXTS.values() for path in re.findall(pattern, prose(text))}
    assert named
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_tables_written_by_hand_name_what_there_is() -> None:
    assert [row[0] for row in table(TEXTS["docs/report.md"], "status | meaning")] == list(STATUSES)
    proven = [
        n for row in table(TEXTS["docs/backends-and-precisions.md"], "backend | CPU | CUDA") for n in names(row[0])
    ]
    assert sorted(proven) == sorted(n for n in BACKENDS if not n.startswith("planted"))
    axes = [n for row in table(TEXTS["docs/suites.md"], "axis | meaning") for n in names(row[0])]
    assert sorted(axes) == sorted(AXES)
    kinds = [row[0] for row in table(TEXTS["docs/comparing.md"], "kind | example | regressed if")]
    assert sorted(kinds) == sorted([*get_args(Kind), "health"])
    codes = [row[0] for row in table(TEXTS["docs/exit-codes.md"], "code | what to do")]
    assert codes == [row[0] for row in table(TEXTS["docs/exit-codes.md"], "code | meaning")]


def test_warnings_and_sections_of_the_report_are_in_the_code() -> None:
    rooms = {room: "\n".join(p.read_text() for p in (ROOT / room).rglob("*.py")) for room in ("harness", "benches")}
    code = "".join(rooms.values())
    warnings = [names(row[0])[0] for row in table(TEXTS["docs/report.md"], "warning | meaning")]
    assert warnings
    assert [name for name in warnings if f'"{name}: ' not in code] == []
    sections = "\n".join(p.read_text() for p in (ROOT / "reports" / "sections").glob("*.py"))
    titles = [row[0] for row in table(TEXTS["docs/report.md"], "section | what it answers")]
    assert len(titles) == sections.count("@SECTIONS.add(")
    assert [title for title in titles if f'"{title}"' not in sections] == []


def test_suites_shown_are_suites(tmp_path: Path) -> None:
    """All but those of models that their page defines; a folder of weights is one that exists here."""
    shown = [body for text in TEXTS.values() for language, body in FENCE.findall(text) if language == "yaml"]
    bodies = [body.replace("/data/my-stable-diffusion", str(tmp_path)) for body in shown if "cases:" in body]
    found = [suite.parse(body) for body in bodies if "model: my_" not in body]
    assert sorted(len(s.cases) for s in found) == [3, 4, 12]


def test_the_model_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and YAML of docs/your-own-model.md: a row of the suite, built, and its network called."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS))
    blocks = FENCE.findall(TEXTS["docs/your-own-model.md"])
    (python,) = [body for language, body in blocks if language == "python"]
    (text,) = [body for language, body in blocks if language == "yaml" and "my_net" in body]
    exec(compile(python, "my_models.py", "exec"), {"__name__": "my_models"})
    cases = suite.parse(text).cases
    assert [(c.backend, c.batch_size) for c in cases] == [(b, n) for b in ("eager", "onnxruntime") for n in (1, 8)]
    workload = built(cases[1])
    output = workload.iterate({c.name: c.module for c in workload.components}, workload.batch)
    assert output.shape == workload.output_shape == (8, 10)
    assert torch.isfinite(output).all()


def test_the_model_card_is_what_the_training_writes() -> None:
    """Its figures come from a training; all lines without one are those of the template."""
    fixed = [line for line in card.CARD.splitlines() if "{" not in line]
    assert len(fixed) > 10
    assert [line for line in fixed if line not in TEXTS[CARD].splitlines()] == []


def test_words_that_the_glossary_rejects_are_not_used() -> None:
    rows = [row for part in TEXTS["docs/glossary.md"].split("| word |")[1:] for row in table("| x |" + part, "x")]
    rejected = {word for row in rows for word in row[2].split(", ") if word}
    assert {"judge", "busy", "side", "block"} <= rejected
    found = re.compile(rf"\b(?:{'|'.join(sorted(rejected))})s?\b", flags=re.IGNORECASE)
    used = {page: found.findall(_sentences(text)) for page, text in TEXTS.items() if page != "docs/glossary.md"}
    assert {page: words for page, words in used.items() if words} == {}


def _sentences(text: str) -> str:
    """The prose of a page without code and without the targets of links."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", re.sub(r"^    .*$", "", prose(text), flags=re.MULTILINE))


@pytest.mark.parametrize(
    "module",
    [
        "harness.types",
        "harness.labels",
        "harness.units",
        "harness.timing",
        "harness.reasons",
        "harness.stats",
        "harness.processes.threads",
    ],
)
def test_docstring_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_no_python_file_says_nothing_by_its_name() -> None:
    """A file holds one idea, whatever its length."""
    files = [p for room in ("benches", "harness", "baselines", "reports") for p in (ROOT / room).rglob("*.py")]
    assert [str(p) for p in files if p.stem in {"utils", "util", "helpers", "common", "misc"}] == []
