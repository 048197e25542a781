"""Records of schema 1, in which reasons, warnings and missing figures are sentences, as records of schema 2.

What a version of schema 1 decided by looking into its sentences is recognised here, once, and gets its kind; any other
sentence becomes a reason that states it. A failure's `cause` is now the kind of its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from harness import reasons
from harness.causes import Cause
from harness.reasons import Reason, stated

IDENTICAL: Final = "bit-identical to the fp32 eager output"
# By what the sentence of a failure or of a skipped row was recognised; the GPU check asks whether a capture failed.
KINDS: Final = {
    "unknown_name": re.compile("^UnknownName: "),
    "package_broken": re.compile("cannot be imported"),
    "files_exported": re.compile("^the files are exported; this backend runs nothing$"),
    "capture_failed": re.compile("captur|cuda ?graph|recorded", re.IGNORECASE),
}

SHORT_NAME: Final = re.compile(r"([a-z][a-z0-9 _-]{0,39}): ", re.IGNORECASE)  # of a warning


def measurement(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A measurement of schema 1 with the reasons of schema 2, as `harness.records` reads them. Raises ValueError for a
    cause that no version has written."""
    values = dict(entry)
    values["reason"] = reason(values.get("reason"), values.pop("cause", None))
    if isinstance(values.get("missing"), Mapping):
        values["missing"] = {name: _missing(told) for name, told in values["missing"].items()}
    if isinstance(values.get("warnings"), list):
        values["warnings"] = [_warning(told) for told in values["warnings"]]
    if isinstance(values.get("state"), Mapping):
        values["state"] = _state(values["state"])
    return values


def reason(told: Any, cause: Any) -> Any:
    """A reason and a cause of schema 1 as one reason of schema 2. Raises ValueError for a cause that no version has
    written, and for one without a reason."""
    if isinstance(told, str):
        kind = str(Cause(cause)) if cause is not None else _kind(told)
        return stated(told, kind).to_json()
    if cause is not None:
        raise ValueError(f"the cause {cause!r} has no reason")
    return told


def contention(told: Any) -> Any:
    """Why the control workload was contended; schema 1 has the sentence without its short name."""
    return stated(f"contended: {told}", "contended").to_json() if isinstance(told, str) else told


def _kind(sentence: str) -> str:
    return next((kind for kind, words in KINDS.items() if words.search(sentence)), reasons.STATED)


def _missing(told: Any) -> Any:
    if told == IDENTICAL:
        return Reason("identical_output").to_json()
    return stated(told).to_json() if isinstance(told, str) else told


def _warning(told: Any) -> Any:
    """A version of schema 1 told its own warnings and those of a plugin apart by no means: the short name is the
    kind."""
    if not isinstance(told, str):
        return told
    named = SHORT_NAME.match(told)
    return stated(told, re.sub("[ -]", "_", named[1].lower()) if named else reasons.STATED).to_json()


def _state(state: Mapping[str, Any]) -> dict[str, Any]:
    if state.get("sentinel_contended") is None:
        return dict(state)
    return {**state, "sentinel_contended": contention(state["sentinel_contended"])}
