"""Whether a measurement was contended. The functions are pure: they take the recorded state of the machine and return
the reason, whose kind begins with "contended".

The criteria are fixed here, before anything is measured, and none of them is the measured time. A pair of processes is
left out, or a row is called contended, because of the counters of the kernel and the driver, never because it was slow.

    other processes used more than 10 % of a core     /proc/stat, less this process's own time
    (in a row of a GPU: of the cores left to them)
    the hypervisor took more than 5 % of a core       steal in /proc/stat
    the cgroup's quota throttled this process         nr_throttled in cpu.stat
    another process computed on the GPU               NVML's list of compute processes
    the GPU slowed down for heat or power supply      NVML's clock event reasons, and its counter of throttled time

Only the latency samples and the measurement of energy count. For example, a process takes 16 s, and its samples take
0.9 s of them. Other work of 1.5 s is 9 % of the process, but may affect all of the samples. Other work during the
loading does not change the figure. A state without these passes counts as a whole: in pairs the referee reads the
counters over the timed turns alone, and old runs did not store the passes.

/proc/stat counts in ticks of 10 ms, so a difference below three ticks is within its resolution. The kernel adds the
ticks at its timer interrupts, on all cores at once, so the count may be one interrupt too high on each core that the
process uses. A counter that the machine lacks is None in the state, and is ignored; `imgbench doctor` lists these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.reasons import Reason

OTHER_SHARE: Final = 0.10
STEAL_SHARE: Final = 0.05
RESOLUTION_S: Final = 0.03
INTERRUPT_S: Final = 0.004  # between the timer interrupts of a kernel at 250 Hz
LATENCY_PASS: Final = "latency_pass"
ENERGY_PASS: Final = "energy_pass"
THROTTLED_SHARE: Final = 0.01
# NVML's clock event reasons: hardware slow-down, software and hardware thermal slow-down, hardware power brake.
SLOWED: Final = {0x08: "hardware slow-down", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}


def is_contention(reason: Reason) -> bool:
    """Whether a reason is about contention. Runs of schema 1 have the kind "contended" alone."""
    return reason.kind == "contended" or reason.kind.startswith("contended_")


def contended(state: Mapping[str, Any]) -> Reason | None:
    """Why a measurement with this machine state was contended; None if it was not."""
    if LATENCY_PASS not in state and ENERGY_PASS not in state:
        return _during(state)
    if reason := _during(state.get(LATENCY_PASS, {})):
        return reason
    reason = _during(state.get(ENERGY_PASS, {}))
    return Reason(reason.kind, {**reason.data, "energy": True}) if reason else None


def _during(state: Mapping[str, Any]) -> Reason | None:
    return _cpu(state) or _gpu(state.get("gpu"), state.get("peers", 0), state.get("elapsed_s"))


def _cores_left(state: Mapping[str, Any], own_cores: float) -> float:
    """The number of cores that 10 % refers to: one, or in a row of a GPU those that the row leaves free. A state
    without `cores` was stored before they were recorded."""
    return max(1.0, (state.get("cores") or 1.0) - own_cores) if "gpu" in state else 1.0


def _cpu(state: Mapping[str, Any]) -> Reason | None:
    elapsed = state.get("elapsed_s")
    if not elapsed:
        return None
    other, steal = state.get("other_cpu_s"), state.get("steal_s")
    own_cores = (state.get("own_cpu_s") or 0.0) / elapsed
    left = _cores_left(state, own_cores)
    if other is not None and other > max(OTHER_SHARE * left * elapsed, RESOLUTION_S, INTERRUPT_S * own_cores):
        return Reason("contended_cpu", {"used": other / elapsed, **({"left": left} if left > 1 else {})})
    if steal is not None and steal > max(STEAL_SHARE * elapsed, RESOLUTION_S):
        return Reason("contended_steal", {"share": steal / elapsed})
    if state.get("throttled_periods"):
        return Reason("contended_quota", {"periods": state["throttled_periods"]})
    return None


def _gpu(state: Mapping[str, Any] | None, peers: int, elapsed_s: float | None) -> Reason | None:
    """`peers` is the number of imgbench's own processes that use the GPU beside the measured one."""
    if not state:
        return None
    foreign = (state.get("foreign_processes") or 0) - peers
    if foreign > 0:
        return Reason("contended_gpu_processes", {"count": foreign})
    throttled, elapsed = state.get("thermal_throttled_s"), state.get("elapsed_s", elapsed_s)
    if throttled and elapsed and throttled > THROTTLED_SHARE * elapsed:
        return Reason("contended_gpu_heat", {"share": throttled / elapsed})
    causes = [name for bit, name in SLOWED.items() if (state.get("throttle_reasons") or 0) & bit]
    return Reason("contended_gpu_throttled", {"causes": causes}) if causes else None
