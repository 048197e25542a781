"""What this machine can measure, and what is missing for the rest: rows of (what, status, detail)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any, Final

import benches
from baselines.verdict import FINE
from benches.cli import backend_checks
from benches.cli.backend_checks import Checks, ChecksFailed, Reasons
from benches.cli.printing import print_rows, say_json
from harness import devices
from harness.backends.torch_compile import missing_compiler
from harness.devices import gpus, unmeasured
from harness.processes import environment, threads
from harness.reasons import Reason
from harness.registry import BACKENDS, PRECISIONS
from harness.timing import perf_counter
from harness.units import format_value

WORK_S: Final = 0.1
GPU_SOURCES: Final = {
    "foreign_processes": "other processes",
    "throttle_reasons": "throttle reasons",
    "thermal_throttled_s": "time throttled by heat",
}


def arguments(command: ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def run(options: Namespace) -> int:
    with Checks(options.plugin or ()) as checks:
        benches.load_plugins()
        found = capabilities(checks)
    (say_json if options.json else print_rows)(found)
    return FINE


def capabilities(checks: Checks) -> list[dict[str, Any]]:
    """One row per capability, with the status "yes" or "no", and with the finding or the reason. `checks` checks the
    backends meanwhile. Raises ThreadsRefused."""
    name = devices.default()
    found = environment.collect((name, None))
    device = devices.device(name)
    return [
        _row(
            "device",
            True,
            f"{found['device_name']}, {format_value(found['memory_bytes'], 'B')}",
        ),
        *_gpus(found),
        *_unmeasured(found),
        _threads(found),
        _cuda(),
        *_backends(name, checks),
        _energy(device.energy_meter()),
        _memory(device),
        *_contention(device),
        _compiler("C++ compiler", "cpu", "for torch_compile on a CPU"),
        _compiler("C compiler", "cuda", "for torch_compile on a GPU"),
        _row("quality", True, "digits: imgbench contains the data and the trained weights"),
        *(_row(package, True, version) for package, version in found["versions"].items()),
    ]


def _row(what: str, works: bool, detail: str) -> dict[str, Any]:
    return {"what": what, "status": "yes" if works else "no", "detail": detail}


def _gpus(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each GPU that is measured, with the figures that its maker publishes."""
    rows = []
    for name in dict.fromkeys(str(gpu["name"]) for gpu in found["gpus"]):
        known = gpus.find(name)
        told = (
            f"{known.name}: {known.figures()} (data sheet)" if known else f"imgbench has no published figures of {name}"
        )
        rows.append(_row("GPU", known is not None, told))
    return rows


def _unmeasured(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row if the machine has an accelerator that imgbench does not measure."""
    told = unmeasured.reason(found["unmeasured"])
    return [_row("other accelerators", False, str(told))] if told else []


def _threads(found: Mapping[str, Any]) -> dict[str, Any]:
    """The number of threads of a run, and why; "no" if a variable requests more threads than can run at once."""
    told = [str(threads.in_words(found)), *map(str, threads.warnings(found["threads"], threads.allowed()))]
    return _row("threads", len(told) == 1, "; ".join(told))


def _cuda() -> dict[str, Any]:
    from harness.devices.cuda import unavailable

    reason = unavailable()
    return _row("CUDA", reason is None, "a GPU answers" if reason is None else str(reason))


def _backends(device: str, checks: Checks) -> list[dict[str, Any]]:
    """A row for each backend. One without an answer of the process that checks it is not usable."""
    elsewhere = backend_checks.apart()
    try:
        found: dict[str, Reasons] = checks.reasons()
        failed = "the process that checks it gave no answer about it"
    except ChecksFailed as error:
        found, failed = {}, str(error)
    unknown: Reasons = dict.fromkeys(PRECISIONS, failed)
    return [
        _backend(name, found.get(name, unknown) if name in elsewhere else backend_checks.reasons(name, device))
        for name in BACKENDS
    ]


def _backend(name: str, reasons: Reasons) -> dict[str, Any]:
    able = [precision for precision, reason in reasons.items() if reason is None]
    return _row(f"backend {name}", bool(able), ", ".join(able) or str(next(iter(reasons.values()))))


def _compiler(what: str, device: str, purpose: str) -> dict[str, Any]:
    reason = missing_compiler(device)
    return _row(what, reason is None, str(reason or purpose))


def _energy(meter: devices.EnergyMeter | Reason | str) -> dict[str, Any]:
    missing = isinstance(meter, Reason | str)
    return _row("energy", not missing, str(meter) if isinstance(meter, Reason | str) else meter.source)


def _memory(device: devices.Device) -> dict[str, Any]:
    device.reset_memory_peaks()
    samples, missing = device.memory_peaks()
    works = "peak_host_bytes" in samples
    return _row(
        "peak host memory", works, "VmHWM, reset before each pass" if works else str(missing["peak_host_bytes"])
    )


def _contention(device: devices.Device) -> list[dict[str, Any]]:
    """Whether this machine reports the load of other processes. Its counters must have seen WORK_S of own work."""
    before, until = device.start_span(), perf_counter() + WORK_S
    while perf_counter() < until:
        pass
    state = device.span_state(before)
    told = {
        "contention (CPU)": (
            "other_cpu_s",
            "/proc/stat",
            "/proc/stat does not count CPU time, so other processes are not detected",
        ),
        "contention (PSI)": ("pressure_cpu_us", "/proc/pressure/cpu", "this kernel has no /proc/pressure"),
    }
    rows = [
        _row(what, state[key] is not None, yes if state[key] is not None else no)
        for what, (key, yes, no) in told.items()
    ]
    return [*rows, *_gpu_contention(state)]


def _gpu_contention(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The row of the GPU, or no row without a GPU."""
    if (gpu := state.get("gpu")) is None:
        return []
    unseen = [words for key, words in GPU_SOURCES.items() if gpu.get(key) is None]
    reason = gpu.get("unavailable") or f"the driver does not report {', '.join(unseen)}"
    return [_row("contention (GPU)", not unseen, reason if unseen else f"NVML: {', '.join(GPU_SOURCES.values())}")]
