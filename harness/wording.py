"""The sentences of the measuring side: each kind of reason, and how its data read. Nothing decides by them.

A warning's sentence begins with its short name ("contended: ..."), which a row shows after its status.
"""

from __future__ import annotations

from harness.causes import WORDS, Cause
from harness.reasons import Sentence, sentences


def _contended_cpu(used: float, left: float | None = None, energy: bool = False) -> str:
    of_left = f" ({used / left:.0%} of the {left:.1f} cores left to them)" if left is not None else ""
    return f"contended: other processes used {used:.0%} of a core meanwhile{of_left}{_pass(energy)}"


def _contended_gpu_processes(count: int, energy: bool = False) -> str:
    return f"contended: {count} other process{'es' if count > 1 else ''} computed on the GPU{_pass(energy)}"


def _failed(cause: Cause) -> Sentence:
    return lambda detail="": f"{WORDS[cause]}: {detail}" if detail else WORDS[cause]


def _worker_killed(signal: str, kernel: bool = False, log: str = "") -> str:
    hint = ", and not by the kernel's out-of-memory killer" if kernel else ""
    return f"the worker was killed by {signal}{hint}{_log(log)}"


def _log(text: str) -> str:
    return f"; its last words: {text}" if text else ""


def _outputs_differ(error: float | None) -> str:
    how = "not compared by value" if error is None else f"relative error {error:.2g}"
    return f"the processes of this row gave different outputs ({how})"


def _unsteady(limit_s: float, drift: float | None) -> str:
    shown = "too few iterations to tell" if drift is None else f"{drift:.1%} between the last two windows"
    return f"unsteady: warm-up capped at {limit_s:g} s ({shown})"


def _oversubscribed(threads: int, limit: str, allowed: float, fits: int) -> str:
    cores = f"{allowed:g} core" if allowed == 1 else f"{allowed:g} cores"
    effect = {
        "quota": f"the CPU quota allows {cores}; the kernel throttles the threads beyond it: throughput falls, and the "
        "p50 does not show it",
        "OMP_THREAD_LIMIT": f"OMP_THREAD_LIMIT is {allowed}, and torch runs no more than that",
    }.get(limit, f"the process may use {cores}, and the threads wait for one another")
    return f"oversubscribed: {threads} threads, where {effect} (--threads {fits} fits)"


def _iterations_differ(error: float) -> str:
    return f"for one input the outputs of the first and of later iterations differ (relative error {error:.2g})"


def _energy_differs(counter_j: float, integrated_j: float, limit: float) -> str:
    return (
        f"the counter says {counter_j:.1f} J, the integrated power {integrated_j:.1f} J: they differ by more than "
        f"{limit:.0%}"
    )


def _same_output(values: list[str], axes: list[str], more: int) -> str:
    others = f" and of {more} more" if more else ""
    return (
        f"same output: bit-identical to the row with {' and '.join(values)}{others}, so that the difference in "
        f"{' and '.join(axes)} changed nothing"
    )


def _shapes(found: list[str]) -> str:
    return f"[{', '.join(found)}]"


def _pass(energy: bool) -> str:
    return " (while energy was measured)" if energy else ""


sentences(
    {
        "contended_cpu": _contended_cpu,
        "contended_steal": lambda share, energy=False: (
            f"contended: the hypervisor took {share:.0%} of a core meanwhile{_pass(energy)}"
        ),
        "contended_quota": lambda periods, energy=False: (
            f"contended: the cgroup's CPU quota throttled it in {periods} periods{_pass(energy)}"
        ),
        "contended_gpu_processes": _contended_gpu_processes,
        "contended_gpu_heat": lambda share, energy=False: (
            f"contended: heat held the GPU's clocks down for {share:.0%} of the time{_pass(energy)}"
        ),
        "contended_gpu_throttled": lambda causes, energy=False: (
            f"contended: the GPU slowed down ({', '.join(causes)}){_pass(energy)}"
        ),
    },
    name="contended",
)
sentences(
    {
        **{str(cause): _failed(cause) for cause in Cause},
        "fork_server_killed": lambda: "it killed the fork server",
        "worker_not_started": lambda error, log="": f"{error}{_log(log)}",
        "worker_ended_with_fork_server": lambda log="": f"and the worker with it{_log(log)}",
        "worker_killed": _worker_killed,
        "worker_ended": lambda code, log="": f"the worker ended with exit code {code} and no result{_log(log)}",
        "no_result_in_time": lambda seconds, phase: f"no result after {seconds:g} s; it was in phase {phase!r}",
        "no_end_in_time": lambda phase: f"no end in time; it was in phase {phase!r}",
        "no_answer_in_time": lambda seconds: f"no answer after {seconds:g} s",
        "no_result": lambda: "the block's process gave no result",
        "unknown_name": lambda error: str(error),
        "out_of_memory": lambda error: str(error),
        "error": lambda error: str(error),
        "beside_the_other_arm": lambda reason: (
            f"{reason}; both arms of a pair are in memory at once; each had enough when it was measured alone"
        ),
    }
)
# Warnings of a row.
sentences(
    {
        "unsteady": _unsteady,
        "imprecise": lambda interval, target: (
            f"imprecise: the median inside a process is known to ±{interval:.1%}, asked for was ±{target:.1%}"
        ),
        "clocks": lambda host_s, device_s: (
            f"clocks: {host_s * 1e3:.3f} ms by the wall clock, {device_s * 1e3:.3f} ms by the GPU's events"
        ),
        "not_repeatable": lambda error: f"not repeatable: {_iterations_differ(error)}",
        "outputs_differ": _outputs_differ,
        "throttled": lambda causes: (
            f"throttled: the GPU's clocks were held down while the samples were taken ({', '.join(causes)})"
        ),
        "oversubscribed": _oversubscribed,
        "partly_quantised": lambda share, largest, largest_share: (
            f"partly quantised: {100 * share:.3g} % of the elements of the weight matrices (the largest matrix left is "
            f"{largest} with {100 * largest_share:.3g} % of them)"
        ),
        "upcast": lambda component, precision: (
            f"upcast: {component} runs in {precision}, because its configuration says that it overflows in fp16 "
            "(force_upcast)"
        ),
        "no_templates": lambda multiprocessors: (
            "no templates: inductor has no Triton templates for matrix products and convolutions on a GPU with "
            f"{multiprocessors} multiprocessors, so max-autotune leaves them to cuBLAS and cuDNN"
        ),
        "same_output": _same_output,
        "stages": lambda share: f"stages: they add up to {share:.0%} of the latency",
        "energy": lambda **figures: f"energy: {_energy_differs(**figures)}",
        "unchecked": lambda reason: f"unchecked: the output was not compared with fp32 eager: {reason}",
    }
)
sentences(
    {
        "reference_on_cpu": lambda what: (
            f"reference on the CPU: the GPU had no room for fp32 eager of the {what} beside the timed model, so the "
            "CPU computed it"
        )
    },
    name="reference on the CPU",
)

# Why a row is invalid.
sentences(
    {
        "iterations_differ": lambda error: (
            f"{_iterations_differ(error)}: the network keeps state or draws random numbers, so its iterations do not "
            "do the same work"
        ),
        "processes_differ": lambda what, fact, shown: (
            f"the processes of this row had different {what} ({fact}: {shown})"
        ),
        "cosine_below": lambda cosine, floor: f"cosine {cosine:.4f} to the fp32 eager output is below {floor}",
        "error_above": lambda error, ceiling: (
            f"relative error {error:.4f} from the fp32 eager output is above {ceiling}"
        ),
        "item_error_above": lambda item, items, error, ceiling: (
            f"item {item} of {items} has a relative error of {error:.4f} from the fp32 eager output, above {ceiling:g}"
        ),
        "reference_of_other_weights": lambda reference, row: (
            f"the fp32 reference was computed with other weights ({reference}) than this row loaded ({row}): the model "
            "must load the same weights each time"
        ),
        "reference_changes_weights": lambda: (
            "the network changes its own weights while it runs, so that there is no fp32 reference"
        ),
        "nothing_quantised": lambda precision, elements: (
            f"{precision} was asked for, but none of the {elements} elements of the weight matrices is quantised"
        ),
        "calls_differ": lambda component, count, iterations, wanted: (
            f"{component} was called {count} times in {iterations} iterations, where {wanted} were asked for"
        ),
        "shapes_differ": lambda component, found, wanted: (
            f"{component} was called with shapes {_shapes(found)} instead of {_shapes(wanted)}"
        ),
        "output_of_other_shape": lambda found, wanted: f"the output has shape {found} instead of {wanted}",
        "output_empty": lambda shape: f"the output has shape {shape}, which holds no value",
        "output_not_finite": lambda count: f"the output has {count} values that are NaN or infinite",
        "outputs_constant": lambda count, items: f"{count} of {items} outputs are constant",
        "weights_changed": lambda components: (
            f"the weights of {', '.join(components)} changed while the row was measured"
        ),
        "not_finite": lambda metric: f"{metric} is not a finite number",
    }
)

# Why a metric is missing.
sentences(
    {
        "not_measured_yet": lambda: "not measured yet",
        "not_measured": lambda: "not measured",
        "no_such_metric": lambda: "this row has no such metric: another model's, or weights that imgbench cannot judge",
        "too_few_samples": lambda needed, count: f"needs {needed} samples, has {count}",
        "identical_output": lambda: "bit-identical to the fp32 eager output",
        "reference_itself": lambda: "this row is the fp32 eager reference itself",
        "no_reference": lambda reason: f"there is no fp32 reference: {reason}",
        "no_reference_of_quality_set": lambda reason: f"there is no fp32 reference of the quality set: {reason}",
        "no_time_left": lambda: "the row had no time left for it",
        "reference_too_slow": lambda limit_s: (
            f"computing the reference on the row's device took more than {limit_s:g} s (timeout_s)"
        ),
        "reference_not_on_gpu": lambda reason: (
            f"the GPU had no room for the reference beside the timed model, and {reason}"
        ),
        "cpu_reference_too_slow": lambda limit_s: f"the CPU did not compute it within {limit_s:g} s (timeout_s)",
        "cpu_reference_killed": lambda signal: f"the process that computed it on the CPU was killed by {signal}",
        "cpu_reference_ended": lambda code: f"the process that computed it on the CPU ended with exit code {code}",
        "cpu_reference_failed": lambda error: f"computing it on the CPU failed: {error}",
        "no_images": lambda output: f"PSNR is for images; this output is {output}",
        "not_a_classifier": lambda: "not a classifier",
        "features_name_no_class": lambda: "features name no class",
        "output_holds_integers": lambda: "the output holds integers, not logits",
        "single_logit": lambda: "a single logit per item names no class",
        "quality_off": lambda: "the protocol has quality: false",
        "stages_off": lambda: "the protocol has stages: false",
        "not_a_diffusion_model": lambda: "not a diffusion model",
        "not_taken_in_turns": lambda: "not taken where two processes take turns",
        "latency_by_device_clock": lambda: "with cold_cache the latency itself is measured by the GPU's clock",
        "keeps_nothing": lambda: "every process builds anew: this backend keeps nothing on disk",
        "built_anew": lambda: "this process built anew; a later one finds what it left",
        "found_built": lambda: "this process found what an earlier one had built, and built nothing anew",
        "no_cuda_graphs": lambda: "this backend captures no CUDA graphs here",
        "driver_memory_not_read": lambda error: f"the driver's memory could not be read during the pass: {error}",
        "replayed_cuda_graph": lambda: "a replayed CUDA graph asks the allocator for nothing: what it uses is reserved",
        "own_allocator": lambda: "the backend has an allocator of its own, which torch does not see",
        "energy_period_unknown": lambda source: (
            f"{source}: how often it moves could not be measured, so no window is known to be long enough"
        ),
        "energy_sensor_lost": lambda source, error: f"{source}: {error}",
        "energy_counter_still": lambda source, seconds: f"{source} did not move in {seconds:.1f} s",
        "energy_counter_still_when_idle": lambda source: f"{source} did not move while the device was idle",
        "energy_not_credible": lambda source, **figures: f"{source}: {_energy_differs(**figures)}",
        "not_above_idle_power": lambda idle_w: f"not above the idle power of {idle_w:.1f} W",
    }
)
