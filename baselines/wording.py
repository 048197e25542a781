"""The kinds of reasons that a comparison gives, and the sentence of each. Code decides by kind and data only.

    because(ReasonKind.NO_VALUE)
    str(because(ReasonKind.FIELD_DIFFERS, name="torch", here="2.14", there="2.13"))   # "torch is 2.14 here and ..."

A sentence contains the reason's data: JSON values in base units, and further reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from harness.paired.control_row import COPY
from harness.reasons import Reason, sentences
from harness.units import counted, format_value, percent

LONGEST_VALUES: Final = 120  # characters of both values of a field: longer values are left out
ACCEPT: Final = "accept it with imgbench baseline save, or pass --allow-new"
STATUSES: Final = {
    "ok": "is ok",
    "failed": "failed",
    "invalid": "is invalid",
    "oom": "ran out of memory",
    "timeout": "timed out",
    "skipped": "was skipped",
    "not_run": "was not measured",
}


class ReasonKind(StrEnum):
    """The kinds of reasons of verdicts, notes and refusals."""

    # The status of a row.
    ROW_STATUS = "row_status"
    ROW_BROKEN = "row_broken"
    ROW_STILL_BROKEN = "row_still_broken"
    ROW_BROKEN_ELSEWHERE = "row_broken_elsewhere"
    ROW_SKIPPED = "row_skipped"
    ROW_HEALTHY_NOW = "row_healthy_now"
    ROW_NEW = "row_new"
    ROW_NOT_MEASURED = "row_not_measured"
    NOT_MEASURED_NOR_STORED = "not_measured_nor_stored"
    PROCESSES_MISSING = "processes_missing"
    # Whether two rows did the same work under the same conditions.
    FACT_VARIES = "fact_varies"
    FIELD_DIFFERS = "field_differs"
    FIELD_CHANGED = "field_changed"
    FIELD_UNKNOWN = "field_unknown"
    LONG_FIELD_DIFFERS = "long_field_differs"
    NETWORK_PRECISION = "network_precision"
    OTHER_WORK = "other_work"
    NO_WORK_IDENTITY = "no_work_identity"
    OTHER_CONDITIONS = "other_conditions"
    NO_CONDITIONS = "no_conditions"
    SEVERAL = "several"
    # One metric of a row.
    METRIC_NOT_DESCRIBED = "metric_not_described"
    METRIC_NEW = "metric_new"
    NO_VALUE = "no_value"
    NO_SAMPLES = "no_samples"
    BAD_VALUE = "bad_value"
    NO_DURATION = "no_duration"
    BIT_IDENTICAL = "bit_identical"
    EQUAL = "equal"
    EXACT_VALUE_VARIES = "exact_value_varies"
    EXACT_VALUE_CHANGED = "exact_value_changed"
    EXACT_VALUE_OF_OTHER_WORK = "exact_value_of_other_work"
    TOLERANCE = "tolerance"
    ITEM_COUNTS_DIFFER = "item_counts_differ"
    ITEM_NOT_BINARY = "item_not_binary"
    ITEMS_FLIPPED = "items_flipped"
    INDISTINGUISHABLE = "indistinguishable"
    IDENTICAL_TO_REFERENCE = "identical_to_reference"
    IDENTICAL_NOW = "identical_now"
    IDENTICAL_BEFORE = "identical_before"
    SET_CHANGED = "set_changed"
    SET_TOO_SMALL = "set_too_small"
    SET_SHAPES_DIFFER = "set_shapes_differ"
    SET_UNREADABLE = "set_unreadable"
    SET_FEATURES_NOT_KEPT = "set_features_not_kept"
    SESSION_SHIFT = "session_shift"
    PROCESSES_DISAGREE = "processes_disagree"
    CHANGE_NOT_EXCLUDED = "change_not_excluded"
    SUSPECT = "suspect"
    RELATIVE_SHIFT = "relative_shift"
    NO_ROUNDS = "no_rounds"
    OTHER_HOST = "other_host"
    CONTENDED_SESSIONS = "contended_sessions"
    # The outcome of a comparison that is not decided.
    WOULD_READ = "would_read"
    CONTENDED_ROW = "contended_row"
    CONTENDED_RUN = "contended_run"
    # A run as a whole.
    CONTENDED_ROWS = "contended_rows"
    CONTROL = "control"
    CONTROL_TOO_FEW = "control_too_few"
    GROUP_CONTROLS = "group_controls"
    CONTROL_NOTE = "control_note"
    CONTROL_MOVED = "control_moved"
    CONTROL_WORKLOAD_MOVED = "control_workload_moved"
    NO_BASELINE = "no_baseline"
    STALE_BASELINE = "stale_baseline"
    STALE_SESSIONS = "stale_sessions"
    OWN_BASELINE_UNLIKE = "own_baseline_unlike"
    ROWS_NOT_ASKED_FOR = "rows_not_asked_for"
    LEFT_OUT_ITSELF = "left_out_itself"
    COMPARED_WITH_ITSELF = "compared_with_itself"
    SPEED_ADVISORY = "speed_advisory"
    WEIGHTS_MOVED = "weights_moved"
    MEASURED_AGAIN = "measured_again"
    ROUNDS_MEASURED_AGAIN = "rounds_measured_again"
    NOT_MEASURED_AGAIN = "not_measured_again"
    NO_BUDGET = "no_budget"
    ANOTHER_HOST = "another_host"
    OTHER_CODE = "other_code"
    OTHER_CONDITIONS_NOW = "other_conditions_now"
    # Pairs of processes.
    ENDED_BUDGET = "ended_budget"
    ENDED_DECIDED = "ended_decided"
    ENDED_GAVE_UP = "ended_gave_up"
    ENDED_INTERRUPTED = "ended_interrupted"
    ENDED_NOTHING_TIMED = "ended_nothing_timed"
    CONFIRMED = "confirmed"
    CONFIRMED_BY_ALL_PAIRS = "confirmed_by_all_pairs"
    WITHIN_GUARANTEE = "within_guarantee"
    SUSPICION_WITHDRAWN = "suspicion_withdrawn"
    SUSPICION_OPEN = "suspicion_open"
    SUSPICION_UNSETTLED = "suspicion_unsettled"
    LATER_PAIRS_WIDER = "later_pairs_wider"
    NO_LARGER = "no_larger"
    NO_PAIR = "no_pair"
    PAIRS_UNDECIDED = "pairs_undecided"
    FEW_SAMPLES_IN_PROCESS = "few_samples_in_process"
    NO_FIGURE = "no_figure"
    BROKEN_IN_PAIR = "broken_in_pair"
    CONTENDED_PAIRS = "contended_pairs"
    PAIRED_CONTROL_MOVED = "paired_control_moved"
    PAIR_COUNTS = "pair_counts"
    SLOT_EFFECT = "slot_effect"
    MEAN_SHIFT = "mean_shift"
    CONTROL_PAIRS = "control_pairs"
    CONTROL_PAIRS_TOO_FEW = "control_pairs_too_few"
    # The preflight of a paired run.
    PREFLIGHT_CUT_OFF = "preflight_cut_off"
    ONLY_IN_HEAD = "only_in_head"
    BASE_BROKEN = "base_broken"
    HEALTHY_IN_HEAD = "healthy_in_head"
    SKIPPED_IN_BOTH = "skipped_in_both"
    BROKEN_IN_BOTH = "broken_in_both"
    ONE_WINDOW = "one_window"
    FEW_PROCESSES = "few_processes"
    QUALITY_NOT_MEASURED = "quality_not_measured"
    OUTPUTS = "outputs"


def because(kind: ReasonKind, /, **data: Any) -> Reason:
    """The reason of this kind; `data` are the arguments of its sentence."""
    return Reason(kind, data)


def several(reasons: Sequence[Reason]) -> Reason:
    """All of `reasons` as one reason; a single reason is returned unchanged."""
    return reasons[0] if len(reasons) == 1 else because(ReasonKind.SEVERAL, reasons=list(reasons))


def field_differs(name: str, here: Any, there: Any) -> Reason:
    """The reason that a field differs, without values that are too long to read."""
    if len(value_text(here)) + len(value_text(there)) > LONGEST_VALUES:
        return because(ReasonKind.LONG_FIELD_DIFFERS, name=name)
    return because(ReasonKind.FIELD_DIFFERS, name=name, here=here, there=there)


def share(part: float) -> str:
    """A size as text: 0.123 -> '12.3 %'."""
    return percent(part, ".1")


def interval(shift: float, low: float, high: float) -> str:
    """A shift with its 95 % interval: '+1.25 % [+0.50 %, +2.00 %]'."""
    return f"{percent(shift, '+.2')} [{percent(low, '+.2')}, {percent(high, '+.2')}]"


def value_text(value: object) -> str:
    """A stored value as text; None is "absent"."""
    if value is None:
        return "absent"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(each) for each in value) or "absent"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row_status(status: str, reason: Reason | None = None) -> str:
    words = STATUSES.get(status, status)
    return f"{words}: {reason}" if reason is not None else words


def _row_new(status: Reason | None = None, acceptable: bool = False) -> str:
    here = f"; in this run it {status}" if status is not None else ""
    return f"the row is not in the baseline{here}{f'; {ACCEPT}' if acceptable else ''}"


def _processes_missing(measured: int, planned: int, problems: Sequence[str] = ()) -> str:
    lost = f" ({'; '.join(problems)})" if problems else ""
    return f"{measured} of {planned} planned processes were measured{lost}"


def _field_unknown(name: str, here: bool, there: bool) -> str:
    where = "here and in the baseline" if here and there else "here" if here else "in the baseline"
    return f"{name} is unknown {where}, and an unknown machine matches no other host"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _joined(reasons: Sequence[Reason], between: str = "; ") -> str:
    return between.join(map(str, reasons))


def _exact_value_changed(there: float, here: float, unit: str) -> str:
    texts = [format_value(value, unit, 6) for value in (there, here)]
    if texts[0] == texts[1]:
        texts = [f"{value:.17g} {unit}" for value in (there, here)]
    return f"the value changed from {texts[0]} to {texts[1]}"


def _tolerance(there: float, change: float, allowed: float, unit: str, within: bool, directed: bool = True) -> str:
    relative = there and unit != "dB"
    moved = percent(change / abs(there)) if relative else f"{change:+.3g} {unit}"
    limit = share(allowed / abs(there)) if relative else format_value(allowed, unit)
    word = "within" if within else "beyond"
    return f"{moved}, {word} the tolerance of {limit}{'' if directed else '; neither direction is better'}"


def _items_flipped(lost: int, won: int, items: int, p_value: float, possible: float | None = None) -> str:
    flips = lost + won
    more = f"; a change of {share(possible)} is not excluded" if possible is not None else ""
    return (
        f"{flips} of {items} items flipped ({share(flips / items)}): {lost} lost, {won} won; "
        f"McNemar p = {p_value:.2g}{more}"
    )


def _pair_counts(kept: int, dropped: int, ended: str) -> str:
    if not kept and not dropped:
        return f"no pair was measured; {ended}"
    left_out = f"{counted(dropped, 'contended pair')} {'is' if dropped == 1 else 'are'} left out"
    return (
        f"{counted(kept, 'pair')} of fresh processes {'counts' if kept == 1 else 'count'} over all rows, {left_out}; "
        f"the measurement ended: {ended}"
    )


def _set_changed(shift: float, baseline: float, low: float, high: float, images: int, allowed: float) -> str:
    relative = f" ({percent(shift / abs(baseline))})" if baseline else ""
    return (
        f"{shift:+.3g}{relative}, 99 % interval [{low:+.3g}, {high:+.3g}] from a paired bootstrap of {images} "
        f"images; the tolerance is {allowed:.3g}"
    )


def _session_shift(
    change: float,
    threshold: float,
    beyond: bool,
    detectable: float,
    sessions: int,
    needed: int | None = None,
    undecided: Reason | None = None,
) -> str:
    advisory = f"advisory: {sessions} of {needed} sessions; " if needed is not None else ""
    more = f"; {undecided}" if undecided is not None else ""
    return (
        f"{advisory}{percent(change)}, {'beyond' if beyond else 'within'} the noise of {counted(sessions, 'session')} "
        f"({share(threshold)}); a change below {share(detectable)} is not detected reliably{more}"
    )


def _suspect(reason: Reason, outcome: str, comparisons: int) -> str:
    return (
        f"{reason}; the row is suspect ({outcome}) and not confirmed, because {counted(comparisons, 'comparison')} can "
        "show such a change by chance: measure again"
    )


def _relative_shift(
    change: float,
    threshold: float,
    detectable: float,
    members: int,
    sessions: int,
    other: str | None = None,
    needed: int | None = None,
    excluded: float | None = None,
    suspect: bool = False,
) -> str:
    """`suspect` is for the decision to measure again; the numbers say the same."""
    beyond = "beyond" if abs(change) > threshold else "within"
    among = f"the other {members - 1} rows of its group" if other is None else other
    told = [
        f"{percent(change)} relative to {among}, {beyond} the noise of {counted(sessions, 'session')} "
        f"({share(threshold)}); a change below {share(detectable)} is not detected reliably"
    ]
    if needed is not None:
        told.insert(0, f"advisory: fewer than {needed} comparisons with sessions show how much sessions differ")
    if other is not None:
        told.append("in a group of two rows either of them may have changed")
    if excluded is not None:
        told.append(f"a change of {share(excluded)} is not excluded")
    return "; ".join(told)


def _group_controls(groups: int, label: str, shift: float, least: float, most: float, rounds: int) -> str:
    """`shift`, `least` and `most` in log ratio."""
    moved, low, high = (math.expm1(value) for value in (shift, least, most))
    which = "of the reference" if groups == 1 else f"of the references of {groups} groups"
    return (
        f"a second copy {which} took turns with it; {label} shows the clearest difference from its copy, "
        f"{percent(moved)} "
        f"({counted(rounds, 'round')}; the noise of this run explains {percent(low)} to {percent(high)})"
    )


def _control(label: str, shift: float, least: float, most: float, processes: int) -> str:
    """`shift`, `least` and `most` in log ratio."""
    moved, low, high = (math.expm1(value) for value in (shift, least, most))
    return (
        f"{label} differs from itself by {percent(moved)} ({counted(processes, 'process')} per row; the noise "
        f"of this run explains {percent(low)} to {percent(high)})"
    )


def _measured_again(rows: int, processes: int, planned: int, suite: str) -> str:
    number = f"{processes} of {planned}" if processes < planned else str(processes)
    short = " (the budget is spent)" if processes < planned else ""
    return f"{_suspects(rows)} measured again in {number} additional processes{short}{_hint(suite)}"


def _rounds_measured_again(rows: int, rounds: int, planned: int, suite: str) -> str:
    number = f"{rounds} of {planned}" if rounds < planned else str(rounds)
    short = " (the budget is spent)" if rounds < planned else ""
    return f"{_suspects(rows)} measured again in {number} additional rounds{short}{_hint(suite)}"


def _suspects(rows: int) -> str:
    return f"{counted(rows, 'suspect row')} {'was' if rows == 1 else 'were'}"


def _hint(suite: str) -> str:
    """The command that measures suspects against another commit."""
    return f"; to compare with another commit directly, run imgbench ab {suite} --base ref=COMMIT"


def _no_larger(guarantee: float, pairs: int, fresh: int | None = None) -> str:
    measured = f"after {pairs} pairs" if fresh is None else f"suspected after {pairs} pairs, then {fresh} fresh pairs"
    return f"no change above {percent(guarantee, '.0')}; a smaller change cannot be excluded ({measured})"


def _contended_pairs(dropped: int, pairs: int, example: Reason | None = None) -> str:
    quoted = f' (for example "{example}")' if example is not None else ""
    return f"{dropped} of {pairs} pairs ({percent(dropped / pairs, '.0')}) were contended{quoted}"


def _control_name(row: str) -> str:
    """The control of a paired run by its row: 'A/A control', or the name of a control workload as it is."""
    return f"{row} control" if row == COPY else row


def _bounded(shift: float, low: float, high: float) -> str:
    return f"{percent(shift)} [{percent(low)}, {percent(high)}]"


def _paired_control_moved(row: str, metric: str, shift: float, low: float, high: float, same_code: bool) -> str:
    what = "runs the same code in both arms" if same_code else "is work that no arm can change"
    return f"{_control_name(row)} ({metric}) moved by {_bounded(shift, low, high)}, although it {what}"


def _control_pairs(row: str, moved: bool, shift: float, low: float, high: float, pairs: int) -> str:
    moves = "moved" if moved else "did not move"
    return f"{_control_name(row)} {moves}: {interval(shift, low, high)} over {pairs} pairs"


K = ReasonKind
SENTENCES: Final[dict[str, Callable[..., str]]] = {
    K.ROW_STATUS: _row_status,
    K.ROW_BROKEN: lambda now, before: f"in this run the row {now}; in the baseline it {before}",
    K.ROW_STILL_BROKEN: lambda now, before: f"in this run the row {now}; in the baseline it {before}",
    K.ROW_BROKEN_ELSEWHERE: lambda now: f"the row {now}; the baseline comes from another machine",
    K.ROW_SKIPPED: lambda now, before: f"in this run the row {now}; in the baseline it {before}",
    K.ROW_HEALTHY_NOW: lambda before: f"the row is ok now; in the baseline it {before}",
    K.ROW_NEW: _row_new,
    K.ROW_NOT_MEASURED: lambda: "the row was not measured in this run",
    K.NOT_MEASURED_NOR_STORED: lambda: "the row was not measured in this run, and it is not in the baseline",
    K.PROCESSES_MISSING: _processes_missing,
    K.FACT_VARIES: lambda name: f"{name} differs between the processes of one row",
    K.FIELD_DIFFERS: lambda name, here, there: (
        f"{name} is {value_text(here)} here and {value_text(there)} in the baseline"
    ),
    K.FIELD_CHANGED: lambda name, here, there: f"{name} is {value_text(here)} here and {value_text(there)} in the run",
    K.FIELD_UNKNOWN: _field_unknown,
    K.LONG_FIELD_DIFFERS: lambda name: f"{name} differs",
    K.NETWORK_PRECISION: lambda network, here, there: f"{network} is {here} here and {there} in the baseline",
    K.OTHER_WORK: lambda differences: f"the work differs: {_joined(differences, ', ')}",
    K.NO_WORK_IDENTITY: lambda here: f"no hash of the work is recorded {'here' if here else 'in the baseline'}",
    K.OTHER_CONDITIONS: lambda differences: f"the quality conditions differ: {_joined(differences, ', ')}",
    K.NO_CONDITIONS: lambda here: f"no quality conditions are recorded {'here' if here else 'in the baseline'}",
    K.SEVERAL: _joined,
    K.METRIC_NOT_DESCRIBED: lambda metric: f"neither run describes the metric {metric}",
    K.METRIC_NEW: lambda reason=None: (
        f"the baseline has no value of this metric{f' ({reason})' if reason is not None else ''}"
    ),
    K.NO_VALUE: lambda: "there is no value, and no reason is recorded",
    K.NO_SAMPLES: lambda here: f"there are no samples {'here' if here else 'in the baseline'}",
    K.BAD_VALUE: lambda metric, value, here: (
        f"{metric} has the invalid value {value} {'here' if here else 'in the baseline'}"
    ),
    K.NO_DURATION: lambda metric, value: f"{metric} is {value}, which is not a finite positive time",
    K.BIT_IDENTICAL: lambda: "the samples are bit-identical to those of the baseline",
    K.EQUAL: lambda: "the values are equal",
    K.EXACT_VALUE_VARIES: lambda values: (
        f"an exact metric has several values in one run: {', '.join(f'{v:g}' for v in values)}"
    ),
    K.EXACT_VALUE_CHANGED: _exact_value_changed,
    K.EXACT_VALUE_OF_OTHER_WORK: lambda there, here, unit: (
        f"{_exact_value_changed(there, here, unit)}, because the work differs"
    ),
    K.TOLERANCE: _tolerance,
    K.ITEM_COUNTS_DIFFER: lambda here, there: f"there are {here} items here and {there} in the baseline",
    K.ITEM_NOT_BINARY: lambda: "an item is neither 0 nor 1",
    K.ITEMS_FLIPPED: _items_flipped,
    K.INDISTINGUISHABLE: lambda decibel: (
        f"both values are above {decibel:g} dB, where images are visually indistinguishable"
    ),
    K.IDENTICAL_TO_REFERENCE: lambda: "the images are identical to their reference, as in the baseline",
    K.IDENTICAL_NOW: lambda: "the images are identical to their reference now; in the baseline they were not",
    K.IDENTICAL_BEFORE: lambda: "the images are not identical to their reference now; in the baseline they were",
    K.SET_CHANGED: _set_changed,
    K.SET_TOO_SMALL: lambda images, needed: (
        f"{images} images are too few for an interval (at least {needed} are needed)"
    ),
    K.SET_SHAPES_DIFFER: lambda here, there: (
        f"the features have shape {_shape(here)} here and {_shape(there)} in the baseline"
    ),
    K.SET_UNREADABLE: lambda error: f"the stored features cannot be read: {error}",
    K.SET_FEATURES_NOT_KEPT: lambda reason: (
        f"{reason}; there is no interval, because not both runs kept the features of their images"
    ),
    K.SESSION_SHIFT: _session_shift,
    K.PROCESSES_DISAGREE: lambda: "the processes of this run do not agree on the change: measure again",
    K.CHANGE_NOT_EXCLUDED: lambda size: f"a change of {share(size)} is not excluded",
    K.SUSPECT: _suspect,
    K.RELATIVE_SHIFT: _relative_shift,
    K.NO_ROUNDS: lambda: "the row has no round with the reference of its group",
    K.OTHER_HOST: lambda differences, reason: f"advisory: {_joined(differences, ', ')}; {reason}",
    K.CONTENDED_SESSIONS: lambda contention: f"the row was contended in every stored session: {contention}",
    K.WOULD_READ: lambda outcome, reason: f"the provisional outcome is {outcome.replace('_', ' ')}: {reason}",
    K.CONTENDED_ROW: lambda contention, would_read: f"{contention}; {would_read}",
    K.CONTENDED_RUN: lambda would_read: f"the run is contended, so nothing is decided about its speed; {would_read}",
    K.CONTENDED_ROWS: lambda contended, rows, example: (
        f'{contended} of {rows} rows were contended (for example "{example}")'
    ),
    K.CONTROL: _control,
    K.CONTROL_TOO_FEW: lambda label: f"{label} has too few processes to be compared with itself",
    K.GROUP_CONTROLS: _group_controls,
    K.CONTROL_NOTE: lambda control: f"A/A control: {control}",
    K.CONTROL_MOVED: lambda control: f"the A/A control moved: {control}",
    K.CONTROL_WORKLOAD_MOVED: lambda name, shift, sessions: (
        f"the duration of the control workload {name} changed by {percent(math.expm1(shift))} against "
        f"{sessions} stored sessions; no code under test runs in it, so the speed of the machine itself has changed"
    ),
    K.NO_BASELINE: lambda suite, machine: f"no baseline of suite {suite!r} exists for this machine ({machine})",
    K.STALE_BASELINE: lambda saved, days: (
        f"the baseline is stale: its newest session was saved on {saved}, more than {days:g} days before this run "
        "(accept a newer session, or pass --max-age)"
    ),
    K.STALE_SESSIONS: lambda sessions, days: (
        f"stale sessions are left out: {sessions} (saved more than {days:g} days before this run)"
    ),
    K.OWN_BASELINE_UNLIKE: lambda difference: f"the baseline of this machine does not match: {difference}",
    K.ROWS_NOT_ASKED_FOR: lambda rows: f"rows of the baseline that were not requested in this run: {rows}",
    K.LEFT_OUT_ITSELF: lambda: "this run is itself a stored session, so that session is left out",
    K.COMPARED_WITH_ITSELF: lambda: "this run is the only stored session, so it is compared with itself",
    K.SPEED_ADVISORY: lambda differences: f"speed is advisory: {_joined(differences, ', ')}",
    K.WEIGHTS_MOVED: lambda rows: f"rows with the same weights as in the baseline at a different path: {rows}",
    K.MEASURED_AGAIN: _measured_again,
    K.ROUNDS_MEASURED_AGAIN: _rounds_measured_again,
    K.NOT_MEASURED_AGAIN: lambda rows, reason, suite: f"{_suspects(rows)} not measured again: {reason}{_hint(suite)}",
    K.NO_BUDGET: lambda: "--budget is 0",
    K.ANOTHER_HOST: lambda: "the run was made on another host",
    K.OTHER_CODE: lambda: "the code differs from that of the run, or its version is unknown",
    K.OTHER_CONDITIONS_NOW: lambda differences: f"the conditions have changed since the run: {_joined(differences)}",
    K.ENDED_BUDGET: lambda: "the budget is spent",
    K.ENDED_DECIDED: lambda: "the decision rule needed no further pair",
    K.ENDED_GAVE_UP: lambda: "the run stopped early, because most pairs were contended",
    K.ENDED_INTERRUPTED: lambda: "the run was interrupted",
    K.ENDED_NOTHING_TIMED: lambda: "no row could be timed",
    K.CONFIRMED: lambda pairs, fresh, floor, p_value: (
        f"suspected after {pairs} pairs, confirmed by {fresh} fresh pairs beyond "
        f"{percent(floor, '.0')} (p = {p_value:.1g})"
    ),
    K.CONFIRMED_BY_ALL_PAIRS: lambda pairs, fresh, floor, p_value: (
        f"suspected after {pairs} pairs, supported by {fresh} fresh pairs; all {pairs + fresh} pairs together are "
        f"beyond {percent(floor, '.0')} (p = {p_value:.1g})"
    ),
    K.WITHIN_GUARANTEE: lambda guarantee, pairs: f"within ±{percent(guarantee, '.1')} at 99 % after {pairs} pairs",
    K.SUSPICION_WITHDRAWN: lambda pairs, fresh, guarantee: (
        f"suspected after {pairs} pairs; {fresh} fresh pairs are within ±{percent(guarantee, '.1')}"
    ),
    K.SUSPICION_OPEN: lambda pairs, fresh: (
        f"suspected after {pairs} pairs; {fresh} fresh pairs neither confirm nor exclude a change"
    ),
    K.SUSPICION_UNSETTLED: lambda ended, pairs, fresh: (
        f"{ended}: suspected after {pairs} pairs; {fresh} fresh pairs are too few to confirm a change"
    ),
    K.LATER_PAIRS_WIDER: lambda guarantee, pairs: (
        f"the first pairs were within ±{percent(guarantee, '.1')}; all {pairs} pairs together do not exclude a "
        "larger change"
    ),
    K.NO_LARGER: _no_larger,
    K.NO_PAIR: lambda ended: f"{ended}: no pair was measured",
    K.PAIRS_UNDECIDED: lambda ended, pairs: f"{ended}: {pairs} pairs neither show nor exclude a change",
    K.FEW_SAMPLES_IN_PROCESS: lambda figure, samples, needed: (
        f"too few samples in a process for a {figure} ({samples} of {needed})"
    ),
    K.NO_FIGURE: lambda figure: f"no process measured a {figure}",
    K.BROKEN_IN_PAIR: lambda arm, status: f"while pairs were measured, the row of the {arm} {status}",
    K.CONTENDED_PAIRS: _contended_pairs,
    K.PAIRED_CONTROL_MOVED: _paired_control_moved,
    K.PAIR_COUNTS: _pair_counts,
    K.SLOT_EFFECT: lambda shift, low, high: (
        f"slot effect: the second process of a pair is slower than the first by {interval(shift, low, high)}"
    ),
    K.MEAN_SHIFT: lambda shift, low, high: (
        f"mean shift of latency over all rows: {interval(shift, low, high)} (advisory)"
    ),
    K.CONTROL_PAIRS: _control_pairs,
    K.CONTROL_PAIRS_TOO_FEW: lambda row, pairs: (
        f"{_control_name(row)}: {counted(pairs, 'pair')}, too few for a decision"
    ),
    K.PREFLIGHT_CUT_OFF: lambda: "the budget was spent before both arms had measured this row once",
    K.ONLY_IN_HEAD: lambda base: f"the row has a result only in the head; in the base it {base}",
    K.BASE_BROKEN: lambda base: f"in one process of the base the row {base}",
    K.HEALTHY_IN_HEAD: lambda base: f"the row is ok in the head; in the base it {base}",
    K.SKIPPED_IN_BOTH: lambda head: f"in both arms the row {head}",
    K.BROKEN_IN_BOTH: lambda base, head: f"neither arm has a result: in the base the row {base}; in the head it {head}",
    K.ONE_WINDOW: lambda reason: f"{reason}; advisory: each arm has one measurement window",
    K.FEW_PROCESSES: lambda processes, needed, would_read: (
        f"the budget allowed {processes} of {counted(needed, 'process')} per arm; {would_read}"
    ),
    K.QUALITY_NOT_MEASURED: lambda: (
        "the outputs differ, and their quality was not measured within its share of the budget"
    ),
    K.OUTPUTS: lambda same, rows, measured: (
        f"the outputs of the timed batch are bit-identical in both arms in {same} of {rows} rows; "
        f"the quality was measured in both arms in {measured} rows"
    ),
}
sentences(SENTENCES)
