"""YAML for people: plain data, no repeated keys, no anchors or aliases (a few lines of them expand to gigabytes)."""

from __future__ import annotations

from typing import Any

import yaml


class NotYaml(ValueError):
    """Text that is not the YAML that is meant here; `str()` is one line for the user."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise NotYaml(f"line {line}: anchors and aliases are not allowed here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise NotYaml(f"line {key_node.start_mark.line + 1}: a key must be plain text")
            if key_node.value in seen:
                raise NotYaml(f"line {key_node.start_mark.line + 1}: {key_node.value!r} stands twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def load(text: str) -> Any:
    """The document in JSON-like types. Raises NotYaml with one line that names the place."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise NotYaml(f"{where}not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise NotYaml("not valid YAML: nested too deeply") from None
    except ValueError as error:
        raise error if isinstance(error, NotYaml) else NotYaml(f"not valid YAML: {error}") from None
