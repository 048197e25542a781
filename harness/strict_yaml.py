"""YAML for people: plain data, no repeated keys, no anchors or aliases (a few lines of them expand to gigabytes).

Some plain scalars mean different things in YAML 1.1, which PyYAML reads, and in YAML 1.2 (`010` is 8 or 10, `1:30` is
90 or text, `yes` is true or text). Such a scalar is refused, and the message says what to write. `1e-2` is a number.

PyYAML has two scanners. Its own, in Python, reads what people write. libyaml's is about six times faster, but accepts
other texts (a tab after a colon, but no surrogates in JSON's escapes), and is not part of every build of PyYAML. It
reads only the files that imgbench contains, for which both give the same (`load_shipped`).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, cast

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from harness.quoting import LONGEST, quoted

TAG: Final = "tag:yaml.org,2002:"
DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)")
FLOAT: Final = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9_]+")
OCTAL: Final = re.compile(r"[-+]?0o[0-7]+")
BOOLEANS: Final = ("true", "false")


class NotYaml(ValueError):
    """Text that is not YAML of this strict kind; `str()` is one line for the user."""


class _Strict(Composer, SafeConstructor, Resolver):
    """Composes the events of a scanner, without aliases, repeated keys and ambiguous scalars."""

    def __init__(self) -> None:
        for part in (Composer, SafeConstructor, Resolver):
            part.__init__(self)
        self._fields: list[str] = []  # the keys on the way to the current node

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = cast(Any, self).peek_event()  # the scanner's
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise NotYaml(f"line {line}: anchors and aliases are not allowed")
        if getattr(event, "tag", None) not in {None, "!", f"{TAG}str"}:
            raise NotYaml(f"line {line}: tags are not allowed; leave {event.tag} out")
        named = isinstance(index, yaml.ScalarNode)
        if named:
            self._fields.append(index.value)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and not node.style and getattr(event, "tag", None) is None:
            node.tag, problem = _meaning(node.value, node.tag)
            if problem and len(node.value) > LONGEST:
                raise NotYaml(f"{self._where(node)}{quoted(node.value)} is too long for a number; write a shorter one")
            if problem:
                raise NotYaml(f"{self._where(node)}{problem}")
        if isinstance(node, yaml.ScalarNode):
            node.value = _without_surrogates(node.value, self._where(node))
        if named:
            self._fields.pop()
        return node

    def _where(self, node: yaml.ScalarNode) -> str:
        """ "line 3: batch_size: ", the line and the field of a scalar."""
        field = f"{self._fields[-1]}: " if self._fields else ""
        return f"line {node.start_mark.line + 1}: {field}"

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise NotYaml(f"line {key_node.start_mark.line + 1}: a key must be plain text")
            if key_node.value in seen:
                raise NotYaml(f"line {key_node.start_mark.line + 1}: {quoted(key_node.value)} appears twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


class _Loader(_Strict, Reader, Scanner, Parser):
    """The strict loader on PyYAML's own scanner."""

    def __init__(self, stream: Any) -> None:
        Reader.__init__(self, stream)
        for part in (Scanner, Parser, _Strict):
            part.__init__(self)


def _shipped_loader() -> Any:
    """The strict loader on libyaml's scanner, or the one on PyYAML's own where this PyYAML has no libyaml."""
    if not yaml.__with_libyaml__:
        return _Loader
    from yaml._yaml import CParser

    class Shipped(_Strict, CParser):  # `_Strict` precedes the composer that CParser contains
        def __init__(self, stream: Any) -> None:
            CParser.__init__(self, stream)
            _Strict.__init__(self)

    return Shipped


def _without_surrogates(text: str, where: str) -> str:
    r"""`text` with surrogate pairs, as JSON escapes them ("\ud83d\ude00"), joined into characters."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise NotYaml(
            f"{where}an escape (\\ud800 to \\udfff) is half of a character; write the whole character"
        ) from None


def _meaning(word: str, tag: str) -> tuple[str, str | None]:
    """(the tag of a plain scalar here, why it is refused or None); `tag` is its tag in YAML 1.1."""
    kind = tag.removeprefix(TAG)
    quoted = f"write '{word}' in quotes where text is meant"
    if LEADING_ZERO.fullmatch(word):
        digits = word.replace("_", "").lstrip("+-0") or "0"
        return tag, f"{word} has a leading zero, which is octal in YAML 1.1; write {digits}, or {quoted}"
    if OCTAL.fullmatch(word):
        value = int(word.replace("0o", ""), 8)
        return tag, f"{word} is octal in YAML 1.2 and text in YAML 1.1; write {value}, or {quoted}"
    if kind in {"int", "float"} and ":" in word:
        return tag, f"{word} is a base-60 number in YAML 1.1; write it in decimal, or {quoted}"
    if kind in {"int", "float"} and "_" in word:
        return tag, f"{word} has a '_' in a number; write {word.replace('_', '')}, or {quoted}"
    if kind == "int" and not DECIMAL.fullmatch(word):
        return tag, f"{word} is not a decimal number; write it in decimal, or {quoted}"
    if kind == "bool" and word.lower() not in BOOLEANS:
        return tag, f"{word} is a boolean in YAML 1.1 and text in YAML 1.2; write true or false, or {quoted}"
    if kind == "timestamp":
        return tag, f"{word} is a date in YAML 1.1; {quoted}"
    if kind == "merge":
        return tag, "merge keys (<<) are not allowed; write the fields out"
    if kind == "float" or FLOAT.fullmatch(word):
        return _real(word, tag)
    return tag, None


def _real(word: str, tag: str) -> tuple[str, str | None]:
    """`_meaning` of a scalar that is a real number in YAML 1.1 or in YAML 1.2."""
    if not FLOAT.fullmatch(word) or not math.isfinite(float(word)):
        value = "nan" if "nan" in word.lower() else f"{'-' if word.startswith('-') else ''}inf"
        return tag, f"{value} is not finite; write a finite number instead of {word}"
    return (tag if tag.endswith("int") else f"{TAG}float"), None


def load(text: str) -> Any:
    """The document in JSON-like types. Raises NotYaml with one line that names the place."""
    return _load(text, _Loader)


def load_shipped(text: str) -> Any:
    """The document of a file that imgbench contains, by libyaml where PyYAML has it. Raises NotYaml."""
    return _load(text, _shipped_loader())


def _load(text: str, loader: Any) -> Any:
    try:
        return yaml.load(text, Loader=loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = f"U+{error.character:04X}"
        raise NotYaml(f"line {line}: the character {code} is not allowed in YAML; leave it out") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = error.problem or str(error)
        whole = f"{error.context}, {problem}" if problem.startswith("but ") else problem
        raise NotYaml(f"{where}not valid YAML: {whole}") from None
    except RecursionError:
        raise NotYaml("not valid YAML: nested too deeply") from None
    except ValueError as error:
        raise error if isinstance(error, NotYaml) else NotYaml(f"not valid YAML: {error}") from None
