"""Models of the noise in a comparison of two arms with the same code.

    run = MODELS["shared"].draw(np.random.default_rng(0), pairs=64)

All effects are added in the log of a sample. The model `shared` has the noise of a shared runner with two cores. Each
other model has one large effect on a machine with little other noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from baselines.detector.drawn import LATENCY, TAIL_LATENCY, Array, Processes, ResampledRun
from baselines.detector.recorded import Metadata, RecordedProcess, Recording, Row, RowSamples, rounded
from baselines.paired.metrics import TAIL
from harness.paired.pairs import RENEWAL_APART
from harness.stats import percentile_of

ROWS_A_GROUP: Final = 4
FIRST_LATENCY_S: Final = 0.002


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """A model of noise. Unless stated otherwise, sizes are standard deviations in log (0.01 is 1 %).

    - process: noise between processes. Half of its variance is common to all rows of a process.
    - iteration: noise between the iterations of one process.
    - contended: the share of processes that are slowed down, by a share between the two of `slowdown`.
    - drift: noise of the machine's speed over time, equal in both arms. `memory` is the correlation of successive
      processes.
    - layout: constant offsets. Each process draws one of them for each row.
    - server: noise of an offset for each fork server, arm and row, which lasts for `lifetime` pairs.
    - degrees: degrees of freedom of Student's t for the process noise (0: normal).
    - quantum: the step of the clock as a share of the latency.
    """

    description: str
    process: float = 0.005
    iteration: float = 0.01
    contended: float = 0.0
    slowdown: tuple[float, float] = (0.05, 0.60)
    drift: float = 0.0
    memory: float = 0.95
    layout: tuple[float, ...] = ()
    server: float = 0.0
    lifetime: int = RENEWAL_APART
    degrees: int = 0
    quantum: float = 0.0
    rows: int = 12
    samples: int = 25

    @property
    def groups(self) -> dict[str, str]:
        """Group by row."""
        return {f"row {i:02d}": f"group {i // ROWS_A_GROUP}" for i in range(self.rows)}

    def latency_s(self) -> Array:
        """Seconds of each row on a machine without noise. Each row takes 1.5 times as long as the previous one."""
        return np.asarray(FIRST_LATENCY_S * 1.5 ** np.arange(self.rows))

    def seconds(self, generator: np.random.Generator, pairs: int) -> Array:
        """Samples in seconds, (row, pair, arm, iteration). Of every two consecutive pairs, one begins with each arm."""
        noise = self._processes(generator, pairs) + self._drifts(generator, pairs)
        if self.layout:
            noise += generator.choice(np.asarray(self.layout), (self.rows, pairs, 2))
        if self.server:
            servers = generator.normal(0, self.server, (self.rows, -(-pairs // self.lifetime), 2))
            noise += np.repeat(servers, self.lifetime, axis=1)[:, :pairs]
        iterations = generator.normal(0, self.iteration, (self.rows, pairs, 2, self.samples))
        seconds = self.latency_s()[:, None, None, None] * np.exp(noise[..., None] + iterations)
        if self.quantum:
            step = self.quantum * self.latency_s()[:, None, None, None]
            seconds = np.maximum(np.round(seconds / step), 1) * step
        return np.asarray(seconds)

    def draw(self, generator: np.random.Generator, pairs: int = 128) -> ResampledRun:
        """A run of `pairs` pairs."""
        seconds = self.seconds(generator, pairs)
        medians = np.log(np.median(seconds, axis=-1))
        tails = np.log(percentile_of(seconds, TAIL))
        shifts: dict[tuple[str, str], Array] = {}
        arms: tuple[dict[str, Processes], dict[str, Processes]] = ({}, {})
        for number, row in enumerate(self.groups):
            shifts[(row, LATENCY)] = medians[number, :, 1] - medians[number, :, 0]
            shifts[(row, TAIL_LATENCY)] = tails[number, :, 1] - tails[number, :, 0]
            for arm, samples in enumerate(arms):
                samples[row] = list(seconds[number, :, arm])
        return ResampledRun(groups=self.groups, shifts=shifts, base=arms[0], head=arms[1])

    def _processes(self, generator: np.random.Generator, pairs: int) -> Array:
        """The effects of each process, (row, pair, arm)."""
        group = np.arange(self.rows) // ROWS_A_GROUP
        common, own = ((group.max() + 1, pairs, 2), (self.rows, pairs, 2))
        standard = self._standard_noise(generator, common)[group] + self._standard_noise(generator, own)
        noise = standard * self.process / np.sqrt(2)
        contended = generator.random(common) < self.contended
        slowdown = np.log1p(generator.uniform(*self.slowdown, common))
        return np.asarray(noise + np.where(contended, slowdown, 0.0)[group])

    def _standard_noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return generator.standard_t(self.degrees, shape) if self.degrees else generator.normal(size=shape)

    def _drifts(self, generator: np.random.Generator, pairs: int) -> Array:
        """The machine's speed when each process ran, (1, pair, arm): an autoregression over the processes in order."""
        if not self.drift:
            return np.zeros((1, pairs, 2))
        steps = generator.normal(0, self.drift * np.sqrt(1 - self.memory**2), 2 * pairs)
        steps[0] = generator.normal(0, self.drift)
        for i in range(1, 2 * pairs):
            steps[i] += self.memory * steps[i - 1]
        ordered = steps.reshape(pairs, 2)
        head_first = np.repeat(generator.integers(2, size=-(-pairs // 2)), 2)[:pairs] ^ (np.arange(pairs) % 2)
        return np.where(head_first[:, None] == 1, ordered[:, ::-1], ordered)[None]


def recorded(model: NoiseModel, generator: np.random.Generator, pairs: int) -> Recording:
    """A recording of simulated processes, which can be stored and resampled."""
    seconds = model.seconds(generator, pairs)
    processes = [
        RecordedProcess(
            run=0,
            pair=pair,
            slot=arm,
            arm="b" if arm else "a",
            group=group,
            server=pair // model.lifetime,
            elapsed_s=float(pair),
            rows={
                row: RowSamples(seconds=tuple(rounded(v) for v in seconds[number, pair, arm]))
                for number, (row, its_group) in enumerate(model.groups.items())
                if its_group == group
            },
        )
        for pair in range(pairs)
        for group in dict.fromkeys(model.groups.values())
        for arm in (0, 1)
    ]
    metadata = Metadata(
        cpu="none: a model of noise",
        cores=1,
        threads=1,
        suite="noise",
        imgbench="",
        commit="",
        date="",
        conditions=model.description,
    )
    return Recording(metadata=metadata, rows=tuple(Row(id=r, label=r) for r in model.groups), blocks=tuple(processes))


MODELS: Final = {
    "quiet": NoiseModel(description="a dedicated machine: processes differ by 0.5 %, iterations by 1 %"),
    "shared": NoiseModel(
        description="a shared runner: processes differ by 2.5 %, 5 % of them slowed by 5 to 60 %, slow drift of 2 %",
        process=0.025,
        iteration=0.03,
        contended=0.05,
        drift=0.02,
    ),
    "very noisy": NoiseModel(
        description="processes differ by 6 %, 15 % of them slowed by 5 to 60 %, drift of 5 %",
        process=0.06,
        iteration=0.08,
        contended=0.15,
        drift=0.05,
    ),
    "layout": NoiseModel(
        description="each process draws one of four memory layouts for each row: +0, +1.5, +3 or +6 %",
        layout=(0.0, 0.015, 0.03, 0.06),
    ),
    "server": NoiseModel(
        description="an offset of 0.5 % for each fork server, arm and row, two pairs long", server=0.005
    ),
    "heavy tails": NoiseModel(
        description="process noise of Student's t with 2 degrees of freedom", process=0.01, degrees=2
    ),
    "drift": NoiseModel(description="the machine's speed drifts by 5 %, with correlated neighbours", drift=0.05),
    "quantised": NoiseModel(
        description="a coarse clock: all samples of a row are equal",
        process=0.001,
        iteration=0.001,
        quantum=0.05,
    ),
}
