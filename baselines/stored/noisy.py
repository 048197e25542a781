"""The rule for noisy metrics against stored sessions, and the correction of its alarms for the number of rows.

The unit within a session is the process (its median), and the unit of the rule is the session (the median of its
processes). All values are log ratios, with the sign such that positive is worse:

    alarm if  shift > D0 + t(1 - ALPHA, K - 1) * s * sqrt(1 + 1/K)

where s is the standard deviation between the K stored sessions, but at least the value that the spread between the
processes of one session implies. The processes of the run must agree that it is worse by more than D0; of five or more
processes, a fifth may disagree. With fewer than FULL_SESSIONS sessions, s is SHARED_MACHINE_SD together with the spread
between processes, and the verdict is advisory.

A run has dozens of rows, so an alarm counts only if it also passes Benjamini-Hochberg over all rows of the comparison
at FALSE_DISCOVERY. If nothing changed, this bounds the chance of any alarm in the run, because every discovery is then
false. If all rows became slower, it keeps the power that Bonferroni loses. A row that passes alone, but not after the
correction, is `inconclusive`: measure it again.

A row is `unchanged` only if a change of GUARANTEE is detectable and excluded. Every other row is `inconclusive`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import special

from baselines.stored.rows import Groups, process_value
from harness.types import Metric

D0: Final = 0.01
ALPHA: Final = 0.01
FALSE_DISCOVERY: Final = 0.01
FULL_SESSIONS: Final = 4
# Twelve fresh processes of one unchanged model on a shared 2-core machine spread over 14.9 to 17.2 ms: sd 4.5 %.
SHARED_MACHINE_SD: Final = 0.05
DETECTION: Final = 0.95
GUARANTEE: Final = 0.05  # a change of this size is detectable and excluded if a row is "unchanged"
DISAGREEING_SHARE: Final = 0.2  # of the processes, in either direction


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A change in log ratio, positive is worse, with its standard error; `degrees` is infinite if the error is assumed.

    `mildest` and `gravest` are the smallest and the largest shift of a process of the run, without a fifth of the
    processes at either end if there are five or more.
    """

    harm: float
    mildest: float
    gravest: float
    error: float
    degrees: float
    sessions: int

    @property
    def gating(self) -> bool:
        return self.sessions >= FULL_SESSIONS

    @property
    def threshold(self) -> float:
        """Log ratio beyond which a row raises an alarm before the correction."""
        return D0 + quantile(1 - ALPHA, self.degrees) * self.error

    @property
    def detectable(self) -> float:
        """Log ratio that is detected in 95 of 100 cases before the correction."""
        return self.threshold + quantile(DETECTION, self.degrees) * self.error

    @property
    def excluded(self) -> bool:
        """Whether a change of GUARANTEE is detectable, and the 99 % bounds of the shift exclude it."""
        furthest = abs(self.harm) + quantile(1 - ALPHA, self.degrees) * self.error
        return max(self.detectable, furthest) <= math.log1p(GUARANTEE)

    def agreed(self, sign: float) -> bool:
        """Whether the processes of the run are beyond D0 in this direction: one outlier raises no alarm."""
        return (self.mildest if sign > 0 else -self.gravest) > D0

    def p_value(self, sign: float) -> float:
        """The chance of a shift this far beyond D0 if nothing changed; sign +1 is worse, -1 is better."""
        if not self.agreed(sign):
            return 1.0
        beyond = sign * self.harm - D0
        if self.error == 0:
            return 0.0 if beyond > 0 else 1.0
        return float(tail(beyond / self.error, self.degrees))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the harm, in log ratio."""
        half = quantile(0.975, self.degrees) * self.error
        return self.harm - half, self.harm + half


def shift_of(metric: Metric, sessions: Sequence[Groups], here: Groups) -> Shift:
    """The shift of `here` from the stored sessions (oldest first, each a list of samples per process)."""
    stored = [_log_values(metric, groups) for groups in sessions]
    mine = _log_values(metric, here)
    centres = [statistics.median(values) for values in stored]
    turn = -1.0 if metric.better == "higher" else 1.0
    harms = [turn * (value - statistics.fmean(centres)) for value in mine]
    count = len(stored)
    if count >= FULL_SESSIONS:
        between = max(statistics.stdev(centres), typical_sd(stored) / math.sqrt(len(mine)))
        error, degrees = between * math.sqrt(1 + 1 / count), float(count - 1)
    else:
        processes = 1 / len(mine) + 1 / sum(len(values) for values in stored)
        error = math.sqrt(SHARED_MACHINE_SD**2 * (1 + 1 / count) + within_sd([*stored, mine]) ** 2 * processes)
        degrees = math.inf
    ordered, cut = sorted(harms), int(DISAGREEING_SHARE * len(harms))
    return Shift(
        harm=statistics.median(harms),
        mildest=ordered[cut],
        gravest=ordered[-1 - cut],
        error=error,
        degrees=degrees,
        sessions=count,
    )


def within_sd(sessions: Sequence[Sequence[float]]) -> float:
    """Standard deviation between the processes of a session, pooled over sessions; 0 if each has one process."""
    degrees = sum(len(values) - 1 for values in sessions)
    squares = sum((v - statistics.fmean(values)) ** 2 for values in sessions for v in values)
    return math.sqrt(squares / degrees) if degrees else 0.0


def typical_sd(sessions: Sequence[Sequence[float]]) -> float:
    """Median over sessions of the standard deviation between processes; it is robust to one outlier."""
    return statistics.median(statistics.stdev(v) if len(v) > 1 else 0.0 for v in sessions)


def discoveries(p_values: Sequence[float], level: float) -> list[bool]:
    """The hypotheses that Benjamini-Hochberg (1995) rejects at false discovery rate `level`.

    >>> discoveries([0.001, 0.5, 0.02], 0.03)
    [True, False, True]
    """
    order = sorted(p_values)
    passed = [p for rank, p in enumerate(order, start=1) if p <= level * rank / len(order)]
    limit = max(passed, default=-1.0)
    return [p <= limit for p in p_values]


def quantile(share: float, degrees: float) -> float:
    """Quantile of Student's t, or of the normal distribution if `degrees` is infinite."""
    return float(special.ndtri(share) if math.isinf(degrees) else special.stdtrit(degrees, share))


def tail(value: float, degrees: float) -> float:
    """Upper tail probability of Student's t, or of the normal distribution if `degrees` is infinite."""
    return float(special.ndtr(-value) if math.isinf(degrees) else special.stdtr(degrees, -value))


def _log_values(metric: Metric, groups: Groups) -> list[float]:
    return [math.log(process_value(metric, values)) for values in groups]
