"""Generates the tables of the documentation from the registries and from the parser of the command line.

    python -m benches.docs           writes each table between its markers in docs/*.md
    python -m benches.docs --check   writes nothing; exits with 1 and names the pages that are out of date

A page marks the place of a table with its name:

    <!-- generated: models -->
    <!-- end of models -->
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final

import benches
from baselines.verdict import MEANINGS
from benches import cli
from harness.numerics.precisions import Precision
from harness.numerics.tolerance import tolerance
from harness.registry import BACKENDS, PRECISIONS
from harness.types import Protocol
from harness.units import format_value

DOCS: Final = Path(benches.__file__).parents[1] / "docs"
PLACE: Final = re.compile(r"(<!-- generated: (?P<name>[a-z_]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
NONE: Final = "–"
OUTPUTS: Final = ("logits", "images")  # kinds of output that have bounds of their own


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m benches.docs", description="Writes the generated tables of docs/.")
    asked.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = asked.parse_args().check
    benches.load_plugins()
    pages = sorted(DOCS.glob("*.md"))
    if not pages:
        print(f"{DOCS} has no pages: the documentation is written in a checkout of imgbench", file=sys.stderr)
        return 1
    outdated = {page: text for page, text in generated(pages) if text != page.read_text("utf-8")}
    for page, text in outdated.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: docs/{page.name}")
    return int(check and bool(outdated))


def generated(pages: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Each page with the text that it must have. Raises KeyError for a marker that names no table."""
    for page in pages:
        yield page, PLACE.sub(lambda m: f"{m[1]}\n{TABLES[m['name']]()}\n{m[3]}", page.read_text("utf-8"))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. A cell that is None or empty is a dash."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return NONE if value in (None, "") else " ".join(str(value).split()).replace("|", r"\|")


def code(names: Iterable[object]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def listed(what: str) -> list[dict[str, Any]]:
    """What `imgbench list WHAT --json` prints."""
    with redirect_stdout(io.StringIO()) as out:
        cli.main(["list", what, "--json"])
    found: list[dict[str, Any]] = json.loads(out.getvalue())
    return found


def suites() -> str:
    rows = [(f"`{s['name']}`", s["cases"], s["processes"], s["description"]) for s in listed("suites")]
    return table(("suite", "cases", "processes per case", "what it measures"), rows)


def models() -> str:
    rows = [
        (
            f"`{m['name']}`",
            m["family"],
            m["description"],
            None if m["parameters"] is None else format_value(m["parameters"], "count"),
            code(m["weights"]),
            code(axis if value is None else f"{axis}={value}" for axis, value in m["axes"].items()),
        )
        for m in listed("models")
    ]
    return table(("model", "family", "description", "parameters", "weights", "axes and their defaults"), rows)


def schedulers() -> str:
    rows = [(f"`{s['name']}`", s["description"], s["model_calls_for_20_steps"]) for s in listed("schedulers")]
    return table(("scheduler", "description", "model calls for 20 steps"), rows)


def optimizations() -> str:
    rows = [
        (f"`{o['name']}`", o["description"], code(o["backends"]), ", ".join(o["devices"]))
        for o in listed("optimizations")
    ]
    return table(("optimisation", "what it changes", "backends", "devices"), rows)


def metrics() -> str:
    rows = [(f"`{m['name']}`", m["unit"], m["better"], m["kind"], m["description"]) for m in listed("metrics")]
    return table(("metric", "unit", "better", "kind", "what it is"), rows)


def backends() -> str:
    rows = [(f"`{name}`", backend.label, backend.description) for name, backend in BACKENDS.items()]
    return table(("backend", "label", "what it does"), rows)


def precisions() -> str:
    bounds = [f"{bound}, {kind}" for bound in ("cosine floor", "error ceiling") for kind in OUTPUTS]
    rows = [
        (f"`{p.name}`", p.description, p.weights, p.activations, _needs(p), *_bounds(p)) for p in PRECISIONS.values()
    ]
    return table(("precision", "what it is", "weights", "activations", "needs", *bounds), rows)


def _needs(precision: Precision) -> str:
    gpu = "an NVIDIA GPU" if precision.needs_gpu else ""
    if precision.capability is None:
        return gpu
    return f"{gpu or 'on a GPU'} of compute capability {'.'.join(map(str, precision.capability))} or newer"


def _bounds(precision: Precision) -> list[str]:
    found = [tolerance(precision.name, kind) for kind in OUTPUTS]
    return [f"{value:g}" for value in (*(t.cosine_floor for t in found), *(t.error_ceiling for t in found))]


def protocol() -> str:
    """The fields of a suite's `protocol` with their defaults."""
    return table(
        ("field", "default"), [(f"`{name}`", f"`{json.dumps(value)}`") for name, value in vars(Protocol()).items()]
    )


def exit_codes() -> str:
    codes = {**MEANINGS, cli.INTERRUPTED: "interrupted"}
    return table(("code", "meaning"), sorted(codes.items()))


def commands() -> str:
    """Each command with its arguments, from the parser."""
    return "\n".join(_command(f"imgbench {name}", told, found) for name, told, found in subcommands(cli.parser()))


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each subcommand, with its arguments declared; nothing if the parser has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, found in action.choices.items():
                with suppress(SystemExit), redirect_stdout(io.StringIO()):
                    found.parse_args(["--help"])
                yield name, helps[name], found


def _command(words: str, told: str, parser: argparse.ArgumentParser) -> str:
    text = f"## {words}\n\n{_sentence(told)}\n"
    if inner := [_command(f"{words} {name}", said, found) for name, said, found in subcommands(parser)]:
        return "\n".join([text, *inner])
    rows = [(_name(a), _values(a), a.help) for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    return f"{text}\n{table(('argument', 'value', 'what it does'), rows)}"


def _name(action: argparse.Action) -> str:
    if action.option_strings:
        return code(action.option_strings) + (" (required)" if action.required else "")
    return f"`{action.metavar or action.dest}`" + ("" if action.nargs != "?" else " (may be left out)")


def _values(action: argparse.Action) -> str:
    if action.choices is not None:
        return code(action.choices)
    named = action.option_strings and action.nargs != 0
    return (
        code([f"[{action.metavar}]" if action.nargs == "?" else action.metavar or action.dest.upper()]) if named else ""
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "suites": suites,
    "models": models,
    "schedulers": schedulers,
    "optimizations": optimizations,
    "metrics": metrics,
    "backends": backends,
    "precisions": precisions,
    "protocol": protocol,
    "exit_codes": exit_codes,
    "commands": commands,
}

if __name__ == "__main__":
    sys.exit(main())
