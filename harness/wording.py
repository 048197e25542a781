"""The sentence of each kind of reason that measuring gives, made from its data. Nothing decides by a sentence.

A warning's sentence begins with its short name ("contended: ..."), which a row shows after its status.
"""

from __future__ import annotations

from typing import Final

from harness.causes import WORDS, Cause
from harness.reasons import Sentence, sentences
from harness.units import format_value, percent

_OWN_COPY: Final = "let its forward() work on a copy (x = x / 255 instead of x.div_(255))"
ACCELERATORS: Final = {"rocm": "an AMD GPU (ROCm)", "mps": "an Apple GPU (MPS)", "xpu": "an Intel GPU (XPU)"}


def _contended_cpu(used: float, left: float | None = None, energy: bool = False) -> str:
    of_left = f" ({percent(used / left, '.0')} of the {left:.1f} cores left to them)" if left is not None else ""
    return f"contended: other processes used {percent(used, '.0')} of a core{of_left} {_when(energy)}"


def _contended_gpu_processes(count: int, energy: bool = False) -> str:
    return f"contended: {count} other process{'es' if count > 1 else ''} computed on the GPU {_when(energy)}"


def _failed(cause: Cause) -> Sentence:
    return lambda detail="": f"{WORDS[cause]}: {detail}" if detail else WORDS[cause]


def _worker_killed(signal: str, kernel: bool = False, log: str = "") -> str:
    hint = ", and not by the kernel's out-of-memory killer" if kernel else ""
    return f"the worker was killed by {signal}{hint}{_log(log)}"


def _log(text: str) -> str:
    return f"; its log ends with: {text}" if text else ""


def _outputs_differ(error: float | None) -> str:
    how = "not compared by value" if error is None else f"relative error {error:.2g}"
    return f"the processes of this row gave different outputs ({how})"


def _unsteady(limit_s: float, drift: float | None) -> str:
    shown = "too few iterations to tell" if drift is None else f"the last two windows differ by {percent(drift, '.1')}"
    return f"unsteady: the latency was not steady when the warm-up ended at {limit_s:g} s ({shown})"


def _oversubscribed(threads: int, limit: str, allowed: float, fits: int) -> str:
    cores = f"{allowed:g} core" if allowed == 1 else f"{allowed:g} cores"
    effect = {
        "quota": f"the CPU quota allows {cores}; the kernel throttles the threads beyond it, which lowers the "
        "throughput and does not show in the p50",
        "OMP_THREAD_LIMIT": f"OMP_THREAD_LIMIT is {allowed}, and torch runs no more than that",
    }.get(limit, f"the process may use {cores}, and the threads wait for one another")
    return f"oversubscribed: the row ran {threads} threads, but {effect} (use --threads {fits})"


def _iterations_differ(error: float) -> str:
    return f"the first and a later iteration gave different outputs for the same input (relative error {error:.2g})"


def _energy_differs(counter_j: float, integrated_j: float, limit: float) -> str:
    return (
        f"the counter gives {counter_j:.1f} J and the integrated power {integrated_j:.1f} J; they differ by more than "
        f"{percent(limit, '.0')}"
    )


def _same_output(values: list[str], axes: list[str], more: int) -> str:
    others = f" and of {more} more" if more else ""
    return (
        f"same output: the output is bit-identical to that of the row with {' and '.join(values)}{others}, so the "
        f"difference in {' and '.join(axes)} had no effect"
    )


def _input_changed(component: str, input: int, inputs: int) -> str:
    which = f"input {input} of {inputs}" if inputs > 1 else "its input"
    return f"the network {component} writes to {which}, so every later iteration gets a different one; {_OWN_COPY}"


def _speed_levels(slow: int, total: int, low: float, high: float, fast_s: float, slow_s: float) -> str:
    times = f"ran at {format_value(slow_s, 's')} per iteration, the others at {format_value(fast_s, 's')}"
    share = f"a share between {percent(low, '.0')} and {percent(high, '.0')}, by its 95 % interval"
    return f"speed levels: {slow} of {total} processes {times}; such slow processes have {share}"


def _no_round(reference: str, stopped: bool) -> str:
    end = "before the run was stopped" if stopped else "within the time for rounds"
    return f"no valid round of this row and its reference ({reference}) was measured {end}"


def _a_device(name: str) -> str:
    return "a CPU" if name == "cpu" else name


def _unmeasured(found: list[str]) -> str:
    """Names the accelerators by the values of `harness.devices.unmeasured.Accelerator`."""
    told = " and ".join(ACCELERATORS.get(accelerator, accelerator) for accelerator in found)
    return f"this machine has {told}, which imgbench does not measure: it measures NVIDIA GPUs and CPUs"


def _refused(refusal: str, unmeasured: list[str]) -> str:
    return f"{refusal}; {_unmeasured(unmeasured)}" if unmeasured else refusal


def _truncated(tokenizer: str, limit: int, tokens_lost: list[int]) -> str:
    """`tokens_lost` has one number per prompt of the batch."""
    cut = [lost for lost in tokens_lost if lost]
    tokens = f"{min(cut)} to {max(cut)} tokens" if min(cut) < max(cut) else f"{cut[0]} token{'s' if cut[0] > 1 else ''}"
    lose, each = ("lose", " each") if len(cut) > 1 else ("loses", "")
    return (
        f"truncated: the {tokenizer} cuts prompts at {limit} tokens, and {len(cut)} of {len(tokens_lost)} prompts of "
        f"the batch {lose} {tokens}{each}"
    )


def _shapes(found: list[str]) -> str:
    return f"[{', '.join(found)}]"


def _when(energy: bool) -> str:
    return "while energy was measured" if energy else "during the measurement"


sentences(
    {
        "contended_cpu": _contended_cpu,
        "contended_steal": lambda share, energy=False: (
            f"contended: the hypervisor took {percent(share, '.0')} of a core {_when(energy)}"
        ),
        "contended_quota": lambda periods, energy=False: (
            f"contended: the cgroup's CPU quota throttled the process in {periods} periods {_when(energy)}"
        ),
        "contended_gpu_processes": _contended_gpu_processes,
        "contended_gpu_heat": lambda share, energy=False: (
            f"contended: the GPU was thermally throttled for {percent(share, '.0')} of the time {_when(energy)}"
        ),
        "contended_gpu_throttled": lambda causes, energy=False: (
            f"contended: the GPU was throttled ({', '.join(causes)}) {_when(energy)}"
        ),
    },
    name="contended",
)
sentences(
    {
        **{str(cause): _failed(cause) for cause in Cause},
        "fork_server_killed": lambda: "the killed process was the fork server",
        "worker_not_started": lambda error, log="": f"{error}{_log(log)}",
        "worker_ended_with_fork_server": lambda log="": f"the worker ended with it{_log(log)}",
        "worker_killed": _worker_killed,
        "worker_ended": lambda code, log="": f"the worker ended with exit code {code} and no result{_log(log)}",
        "no_result_in_time": lambda seconds, phase: (
            f"the worker gave no result within {seconds:g} s; it was in phase {phase!r}"
        ),
        "no_end_in_time": lambda phase: f"the worker did not end in time; it was in phase {phase!r}",
        "no_answer_in_time": lambda seconds: f"the host of the arm did not answer within {seconds:g} s",
        "no_result": lambda: "the process gave no result",
        "unknown_name": lambda error: str(error),
        "out_of_memory": lambda error: str(error),
        "error": lambda error: str(error),
        "beside_the_other_arm": lambda reason: (
            f"{reason}; both arms of a pair are in memory at once, and each arm alone had enough memory"
        ),
    }
)
# Warnings of a row.
sentences(
    {
        "unsteady": _unsteady,
        "speed_levels": _speed_levels,
        "imprecise": lambda interval, target: (
            f"imprecise: the 95 % interval of a process's median is ±{percent(interval, '.1')}, "
            f"wider than the target ±{percent(target, '.1')}"
        ),
        "clocks": lambda host_s, device_s: (
            f"clocks: an iteration took {host_s * 1e3:.3f} ms by the host's clock, {device_s * 1e3:.3f} by CUDA events"
        ),
        "not_repeatable": lambda error: f"not repeatable: {_iterations_differ(error)}",
        "outputs_differ": _outputs_differ,
        "throttled": lambda causes: (
            f"throttled: the GPU's clocks were reduced while the samples were taken ({', '.join(causes)})"
        ),
        "oversubscribed": _oversubscribed,
        "partly_quantised": lambda share, largest, largest_share: (
            f"partly quantised: {100 * share:.3g} % of the elements of the weight matrices are quantised (the largest "
            f"matrix that is not quantised is {largest} with {100 * largest_share:.3g} % of the elements)"
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
        "schedule": lambda scheduler, setting, value: (
            f"schedule: {scheduler} has no setting {setting}, so {value!r}, which these weights specify, has no effect"
        ),
        "truncated": _truncated,
        "stages": lambda share: f"stages: the times of the stages add up to {percent(share, '.0')} of the latency",
        "energy": lambda **figures: f"energy: {_energy_differs(**figures)}",
        "overhead": lambda overhead_s, latency_s: (
            f"overhead: imgbench itself takes {format_value(overhead_s, 's')} of an iteration of "
            f"{format_value(latency_s, 's')}, which is more than a hundredth of it"
        ),
        "unchecked": lambda reason: f"unchecked: the output was not compared with fp32 eager: {reason}",
    }
)
sentences(
    {
        "reference_on_cpu": lambda what: (
            f"reference on the CPU: the GPU had too little memory for the fp32 reference of the {what} beside the "
            "timed model, so the reference was computed on the CPU"
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
        "cosine_below": lambda cosine, floor: (
            f"the cosine similarity of {cosine:.4f} to the fp32 eager output is below {floor}"
        ),
        "error_above": lambda error, ceiling: (
            f"the relative error of {error:.4f} from the fp32 eager output is above {ceiling}"
        ),
        "item_error_above": lambda item, items, error, ceiling: (
            f"item {item} of {items} has a relative error of {error:.4f} from the fp32 eager output, above {ceiling:g}"
        ),
        "reference_of_other_weights": lambda reference, row: (
            f"the fp32 reference was computed with other weights ({reference}) than this row loaded ({row}): the model "
            "must load the same weights each time"
        ),
        "reference_changes_weights": lambda: (
            "the network changes its own weights while it runs, so there is no fp32 reference"
        ),
        "nothing_quantised": lambda precision, elements: (
            f"{precision} was requested, but none of the {elements} elements of the weight matrices is quantised"
        ),
        "calls_differ": lambda component, count, iterations, wanted: (
            f"{component} was called {count} times in {iterations} iterations instead of {wanted} times"
        ),
        "shapes_differ": lambda component, found, wanted: (
            f"{component} was called with shapes {_shapes(found)} instead of {_shapes(wanted)}"
        ),
        "output_of_other_shape": lambda found, wanted: f"the output has shape {found} instead of {wanted}",
        "output_empty": lambda shape: f"the output is empty: its shape is {shape}",
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
        "only_row_of_its_group": lambda: "no other valid row does the same work",
        "not_in_rounds": lambda: (
            "the rows of this run were measured one after the other, so the ratio of two rows would contain the "
            "changes of the machine's speed between them"
        ),
        "no_round": _no_round,
        "no_such_metric": lambda: (
            "the metric does not apply to this row: it belongs to other models, or imgbench cannot score these weights"
        ),
        "overhead_not_measured": lambda backend: (
            f"the run did not measure what imgbench itself costs an iteration in the backend {backend}"
        ),
        "overhead_failed": lambda status, reason: (
            f"the process of the model null, which measures what imgbench itself costs, ended as {status}: {reason}"
        ),
        "not_given": lambda probe: f"the probe {probe} gives neither the metric nor a reason why it is missing",
        "probe_failed": lambda probe, reason: f"the probe {probe} failed: {reason}",
        "probe_not_run": lambda after: f"the process ended in the probe {after}, before this probe ran",
        "of_quality_set": lambda: "it is measured over the quality set, which was not run",
        "too_few_samples": lambda needed, count: f"the metric needs {needed} samples, and the row has {count}",
        "identical_output": lambda: "bit-identical to the fp32 eager output",
        "reference_itself": lambda: "this row is the fp32 eager reference itself",
        "no_reference": lambda reason: f"there is no fp32 reference: {reason}",
        "no_reference_of_quality_set": lambda reason: f"there is no fp32 reference of the quality set: {reason}",
        "no_time_left": lambda: "the row had no time left to compute it",
        "reference_too_slow": lambda limit_s: (
            f"computing the reference on the row's device took more than {limit_s:g} s (timeout_s)"
        ),
        "reference_not_on_gpu": lambda reason: (
            f"the GPU had too little memory for the reference beside the timed model, and {reason}"
        ),
        "cpu_reference_too_slow": lambda limit_s: f"the CPU did not compute it within {limit_s:g} s (timeout_s)",
        "cpu_reference_killed": lambda signal: f"the process that computed it on the CPU was killed by {signal}",
        "cpu_reference_ended": lambda code: f"the process that computed it on the CPU ended with exit code {code}",
        "cpu_reference_failed": lambda error: f"computing it on the CPU failed: {error}",
        "no_images": lambda output: f"PSNR applies to images only, and this output is {output}",
        "not_a_classifier": lambda: "this model is not a classifier",
        "features_name_no_class": lambda: "the output is features, which have no classes",
        "output_holds_integers": lambda: "the output holds integers, not logits",
        "single_logit": lambda: "the output has a single logit per item, so there is no top class",
        "quality_off": lambda: "the protocol sets quality: false",
        "stages_off": lambda: "the protocol sets stages: false",
        "not_a_diffusion_model": lambda: "this model is not a diffusion model",
        "not_taken_in_turns": lambda: "it is not measured where two processes take turns",
        "latency_by_device_clock": lambda: "with cold_cache the latency itself is measured by the GPU's clock",
        "keeps_nothing": lambda: "this backend keeps no build on disk, so every process builds from scratch",
        "built_anew": lambda: "this process built from scratch; a later process loads that build",
        "found_built": lambda: "this process loaded the build of an earlier process",
        "no_cuda_graphs": lambda: "this backend captures no CUDA graphs here",
        "driver_memory_not_read": lambda error: f"the driver's memory could not be read during the pass: {error}",
        "replayed_cuda_graph": lambda: "a replayed CUDA graph allocates nothing: its memory counts as reserved",
        "own_allocator": lambda: "the backend has its own allocator, whose memory torch does not count",
        "energy_period_unknown": lambda source: (
            f"{source}: its update interval could not be measured, so no window is known to be long enough"
        ),
        "energy_sensor_lost": lambda source, reason: f"{source}: {reason}",
        "energy_counter_still": lambda source, seconds: f"{source} did not change in {seconds:.1f} s",
        "energy_counter_still_when_idle": lambda source: f"{source} did not change while the device was idle",
        "energy_not_credible": lambda source, **figures: f"{source}: {_energy_differs(**figures)}",
        "not_above_idle_power": lambda idle_w: f"the power was not above the idle power of {idle_w:.1f} W",
    }
)

# Why a device does not report a quantity.
sentences(
    {
        "memory_of_host": lambda: "the device is a CPU, whose memory is the host's",
        "clock_of_host": lambda: "the device is a CPU, whose clock is the host's",
        "no_host_peak": lambda: "/proc/self/status has no VmHWM",
        "host_peak_not_reset": lambda error: f"the kernel does not let a process reset its peak: {error}",
        "rapl_zone_lost": lambda zone, error: f"{zone} can no longer be read: {error}",
        "no_rapl_zone": lambda folder: (
            f"no RAPL energy counter: {folder} has no intel-rapl zone (usual in a virtual machine)"
        ),
        "no_rapl_package": lambda folder: f"no RAPL zone of {folder} is a CPU package",
        "rapl_not_permitted": lambda file: f"no permission to read {file}: only root may read it since CVE-2020-8694",
        "rapl_unreadable": lambda error: f"the RAPL counter cannot be read: {error}",
        "caches_not_listed": lambda cpu, folder: f"the kernel does not list the caches of CPU {cpu} ({folder})",
        "cpus_unknown": lambda: "the kernel does not report which CPUs this process may use",
        "l2_size_unknown": lambda: "the driver does not report the size of this GPU's L2 cache",
        "nvml_not_installed": lambda: "nvidia-ml-py is not installed",
        "nvml_error": lambda error: f"NVML: {error}",
        "nvml_error_number": lambda number: f"NVML: error {'unknown' if number is None else number}",
        "nvml_counter_not_available": lambda: "NVML's energy counter is not available",
        "nvml_counter_went_backwards": lambda: "NVML's energy counter went backwards: the driver was reloaded",
        "nvml_memory_not_available": lambda: "NVML: the memory in use is not available",
        "mig_unknown": lambda reason: f"the driver does not report whether MIG is on ({reason})",
        "mig_instance_has_no_counter": lambda: (
            "a MIG instance has no energy counter, and its GPU's counts the other instances too"
        ),
        "mig_counts_all": lambda: "MIG is on, and the GPU's figures count all of its instances",
        "no_energy_counter": lambda reason: f"no energy counter of this device: {reason}",
        "power_not_read": lambda error: f"the power could not be read: {error}",
        "power_not_reported": lambda: "the device does not report its power",
        "power_readings_few": lambda count, covered_s, seconds: (
            f"only {count} power readings, over {covered_s:.2f} of {seconds:.2f} s"
        ),
    }
)

# Why a device is not used.
sentences(
    {
        "unmeasured_accelerators": _unmeasured,
        "measures_the_cpu": lambda found: f"{_unmeasured(found)}; this run measures the CPU",
        "device_unavailable": lambda device, reason, unmeasured: _refused(f"device {device}: {reason}", unmeasured),
        "unknown_device": lambda device, known, unmeasured: _refused(
            f"unknown device {device!r}; known: {', '.join(known)}", unmeasured
        ),
    }
)

# Why a backend, a precision or an optimisation is not available here.
sentences(
    {
        "missing_package": lambda package, purpose: f"{purpose} needs the package {package}, which is not installed",
        "package_broken": lambda package, error: f"{package} cannot be imported: {error}",
        "no_device": lambda why: str(why),
        "precision_undeclared": lambda backend, precision: (
            f"the backend {backend} does not declare the precision {precision}"
        ),
        "torch_without_cuda": lambda: "this build of torch has no CUDA",
        "no_cuda_driver": lambda error: f"no NVIDIA GPU is available: the driver's library cannot be loaded ({error})",
        "no_cuda_device": lambda: "no NVIDIA GPU is available (torch.cuda.is_available() is False)",
        "cuda_asked_before_fork": lambda: (
            "a module calls CUDA when the fork server imports it, so no worker can use CUDA"
        ),
        "needs_gpu": lambda what, device="cpu": f"{what} needs an NVIDIA GPU; the device here is {_a_device(device)}",
        "graphs_need_gpu": lambda device="cpu": (
            f"CUDA graphs need an NVIDIA GPU; the device here is {_a_device(device)}"
        ),
        "tf32_needs_gpu": lambda: "TF32 is a mode of NVIDIA tensor cores; a CPU has none",
        "fp8_needs_gpu": lambda: (
            "torchao's fp8 needs an NVIDIA GPU of compute capability 8.9 or newer; the device here is a CPU"
        ),
        "compute_capability": lambda precision, needed: f"{precision} needs compute capability {needed} or newer",
        "classic_on_cpu_only": lambda: "quantize_dynamic has kernels for a CPU only",
        "classic_gone": lambda version: f"torch {version} no longer has quantize_dynamic",
        "no_quantised_engine": lambda: "this build of torch has no engine for quantised operators",
        "waits_for_gpu": lambda precision: (
            f"torchao's {precision} synchronises with the GPU in every linear layer unless it is compiled, so the "
            "latency would mostly be synchronisation; measure this precision with torch_compile"
        ),
        "waits_for_gpu_in_graph": lambda precision: (
            f"torchao's {precision} synchronises with the GPU inside every call, which no CUDA graph can capture"
        ),
        "not_traceable": lambda: (
            "dynamo cannot trace the packed weights of quantize_dynamic; torchao's int8_dynamic compiles"
        ),
        "no_graphs_on_cpu": lambda: "reduce-overhead uses CUDA graphs; on a CPU it does the same as torch_compile",
        "missing_cpp_compiler": lambda: (
            "inductor needs a C++ compiler on a CPU, and neither g++ nor clang++ is on the PATH"
        ),
        "missing_c_compiler": lambda named=None: (
            "triton needs a C compiler on a GPU, and "
            + (f"CC={named!r} is not found" if named is not None else "neither gcc nor clang is on the PATH")
        ),
        "missing_headers": lambda folder: f"triton needs Python's headers on a GPU, and {folder} has no Python.h",
        "no_onnx_form": lambda precision: f"there is no ONNX form of the precision {precision}",
        "missing_provider": lambda provider: f"this build of onnxruntime has no {provider}",
        "provider_not_loaded": lambda provider, error, needs: f"{provider} cannot be loaded: {error}. It needs {needs}",
        "ort_no_cpu_kernels": lambda precision: (
            f"ONNX Runtime's CPU provider has no {precision} kernels: it would cast to fp32 and back"
        ),
        "ort_other_quantiser": lambda precision: (
            f"{precision} is a precision of torch; ONNX Runtime's own dynamic quantisation is int8_dynamic"
        ),
        "ort_no_cuda_kernels": lambda precision: (
            f"ONNX Runtime's CUDA provider has no kernels for {precision}: the nodes would run on the CPU"
        ),
        "ort_untried": lambda nodes: (
            f"Q/DQ nodes {nodes} are meant for the backend tensorrt and are untested with this provider"
        ),
        "ort_fp32_is_tf32": lambda: (
            "ONNX Runtime's TensorRT provider cannot turn off TF32, so its fp32 would be the precision tf32"
        ),
        "ort_no_fp8_kernel": lambda provider: f"{provider} has no fp8 kernel for Q/DQ nodes: it would multiply in fp32",
        "ort_no_bf16_kernel": lambda operators: (
            f"ONNX Runtime's CUDA provider has no bf16 kernel for {', '.join(operators)}"
        ),
        "openvino_on_gpu": lambda: "OpenVINO has no plug-in for NVIDIA GPUs; it is measured on the CPU (--device cpu)",
        "openvino_over_fp32": lambda precision: f"OpenVINO runs int8_static over fp32, not {precision}",
        "openvino_no_dynamic_ranges": lambda: (
            "OpenVINO reads the ranges of int8 activations from the file (int8_static) and computes none at run time"
        ),
        "openvino_no_torch_module": lambda: "quantize_dynamic makes a torch module, which OpenVINO does not run",
        "openvino_no_weight_only": lambda: (
            "this precision has no export for OpenVINO: ONNX Runtime's export uses its own operator (MatMulNBits)"
        ),
        "openvino_no_fp8": lambda: "OpenVINO's CPU plug-in has no fp8 kernels: it would compute in another precision",
        "openvino_no_kernels": lambda precision: (
            f"OpenVINO's CPU plug-in has no {precision} kernels on this CPU: it would run another precision instead"
        ),
        "tensorrt_too_old": lambda version, needed: (
            f"TensorRT {version} is older than {needed}, which this backend needs"
        ),
        "tensorrt_takes_static": lambda precision: (
            f"TensorRT supports int8 with Q/DQ nodes only (int8_static), not {precision}"
        ),
        "tensorrt_no_dynamic_ranges": lambda: (
            "TensorRT reads the ranges of int8 from Q/DQ nodes in the file (int8_static) and computes none at run time"
        ),
        "tensorrt_no_torch_module": lambda: (
            "quantize_dynamic makes a torch module for a CPU, which TensorRT does not run"
        ),
        "tensorrt_no_weight_only": lambda: (
            "this precision has no export for TensorRT: ONNX Runtime's export uses its own operator (MatMulNBits)"
        ),
        "optimization_of_other_backends": lambda optimization, backends, backend: (
            f"{optimization} is for {', '.join(backends)}, not for {backend}"
        ),
        "no_attention_kernel": lambda optimization, error: (
            f"{optimization}: {error} for these shapes and this precision on this device"
        ),
        "no_attention": lambda optimization: (
            f"{optimization}: no network of this model calls scaled_dot_product_attention"
        ),
        "no_convolution": lambda: "channels_last: this model has no two-dimensional convolution",
        "no_projections": lambda: (
            "fused_qkv: this model has no projections that can be fused (timm's are fused already)"
        ),
        "no_vae": lambda optimization: f"{optimization}: this model has no VAE",
        "nothing_to_slice": lambda optimization: f"{optimization}: a batch of one has nothing to slice",
        "one_tile": lambda optimization: f"{optimization}: an image of this size fits in one tile",
        "dynamic_size_without_pictures": lambda: (
            "dynamic_size: no network of this model has images or latents as inputs"
        ),
        "dimension_made_constant": lambda optimizations, axes, component: (
            f"{'+'.join(optimizations)}: torch.export made the {' or '.join(axes)} of {component} a constant"
        ),
        "cache_unknown": lambda why: f"cold_cache: {why}",
        "no_room_to_flush": lambda bytes: (
            f"cold_cache: there is no memory left for the {bytes / 2**20:.0f} MiB buffer that flushes the caches"
        ),
    }
)

# Why a folder of weights cannot be loaded. `at` is the file or folder; the sentence ends with what to do.
sentences(
    {
        "file_missing": lambda at: f"{at}: there is no such file: copy the whole model",
        "file_not_utf8": lambda at, byte: f"{at}: not UTF-8 text (byte {byte}): save it as UTF-8",
        "json_too_deep": lambda at: f"{at}: not JSON (nested too deeply): download the file again",
        "file_not_json": lambda at, error, line: f"{at}: not JSON ({error}, line {line}): download the file again",
        "json_no_mapping": lambda at, found: f"{at}: holds a {found}, but must hold a mapping: download the file again",
        "file_empty": lambda at: f"{at}: is empty: download it again",
        "file_lfs_pointer": lambda at: (
            f"{at}: is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from"
        ),
        "file_byte_order_mark": lambda at: f"{at}: starts with a byte order mark: save it as UTF-8 without one",
        "archive_truncated": lambda at: f"{at}: the archive is truncated: download it again",
        "safetensors_header_size": lambda at, bytes: (
            f"{at}: not a safetensors file (its header has {bytes} bytes): download it again"
        ),
        "safetensors_header_unreadable": lambda at: (
            f"{at}: not a safetensors file (its header is not readable): download it again"
        ),
        "safetensors_truncated": lambda at, size, wanted: (
            f"{at}: has {size} of the {wanted} bytes in its header: it is truncated, download it again"
        ),
        "folder_without_index": lambda at, index: f"{at} holds no {index}, so save_pretrained did not make it",
        "folder_of_other_pipeline": lambda at, found, wanted, index: (
            f"{at} holds a {found}, not a {wanted} (_class_name in {index}): choose another model"
        ),
        "index_without_part": lambda at, part, pipeline: (
            f"{at}: does not name the part {part!r} of a {pipeline}: copy the whole model"
        ),
        "part_without_folder": lambda at, part, folder: (
            f"{at} names the part {part!r}, but {folder} is not a folder: copy the whole model"
        ),
        "tokenizer_incomplete": lambda at: (
            f"{at}: neither tokenizer.json nor vocab.json with merges.txt is there: copy the whole model"
        ),
        "shard_missing": lambda at, shard: f"{at} names {shard}, which is not there: copy the missing file",
        "no_weights": lambda at, expected, there: (
            f"{at}: no weights ({' or '.join(expected)}); there is {', '.join(there) or 'nothing'}: copy the missing "
            "file"
        ),
        "several_variants": lambda at, variants: (
            f"{at}: there are only weights of the variants {', '.join(variants)}: keep one of them"
        ),
        "weights_files_too_small": lambda at, held, parameters: (
            f"{at}: its weights files hold {held:,} values, but the network of config.json has {parameters:,} "
            "parameters: copy the whole files, or the config.json that belongs to them"
        ),
        "other_architecture": lambda at, found, wanted: (
            f"{at} names the architecture {found!r}, not {wanted!r}: choose the model {found.partition('.')[0]!r}, if "
            "there is one"
        ),
        "other_number_of_classes": lambda at, found, stored: (
            f"{at}: num_classes in model_args is {found}, but the stored weights have {stored}: make both the same"
        ),
        "no_model_args": lambda at: f"{at}: has no mapping model_args: copy a folder that benches.digits.train made",
        "not_for_the_scans": lambda at, name, found, wanted: (
            f"{at}: {name} is {found}, but the scans have {wanted}: use weights of {name} {wanted}"
        ),
        "library_cannot_load": lambda at, library, error: (
            f"{at}: {library} cannot load it; correct what its error names: {error}"
        ),
    }
)

# Why weights cannot do what a case requests.
sentences(
    {
        "not_published": lambda pipeline: f"no pretrained {pipeline} of this size is published in this format",
        "no_num_classes": lambda network: f"{network} has no num_classes: pass it to classifier_workload",
        "image_size_of_weights": lambda wanted, side: (
            f"image_size: these weights make images of {side} px, not {wanted} px (sample_size in "
            f"transformer/config.json): set image_size to {side}"
        ),
        "label_beyond_classes": lambda label, classes: (
            f"label {label} is requested, but these weights have the classes 0 to {classes - 1} (num_embeds_ada_norm "
            "in transformer/config.json): use weights of more classes"
        ),
        "label_is_null_class": lambda label, pipeline: f"label {label} is {pipeline}'s null class: request another one",
        "tokenizer_too_long": lambda tokenizer, encoder, limit, positions: (
            f"{tokenizer}/tokenizer_config.json: model_max_length is {limit}, and max_position_embeddings in "
            f"{encoder}/config.json is {positions}: set model_max_length to {positions}"
        ),
        "latents_not_scaled": lambda pipeline, scheduler, usable: (
            f"{pipeline} neither scales its first latents nor keeps the unscaled ones, which scheduler {scheduler!r} "
            f"needs; it can use {', '.join(usable)}"
        ),
        "guidance_scale_as_input": lambda: (
            "a U-Net that takes the guidance scale as an input (time_cond_proj_dim) is not supported"
        ),
        "text_encoder_with_mask": lambda: (
            "a text encoder with use_attention_mask is not supported: its component takes ids only"
        ),
        "text_encoder_projects": lambda encoder, hidden, projected: (
            f"{encoder} projects {hidden} to {projected}; they must be equal"
        ),
        "scheduler_without_setting": lambda scheduler, class_name, setting, needed: (
            f"scheduler {scheduler!r} ({class_name}) has no setting {setting!r}, and scheduler_config.json of these "
            f"weights needs {needed!r}; choose another scheduler"
        ),
        "schedule_without_betas": lambda trained_for, known: (
            f"these weights were trained for {trained_for}, whose noise schedule has no betas; the schedulers of "
            f"imgbench ({', '.join(known)}) cannot use it"
        ),
    }
)

# Why a linear layer stays unquantised.
sentences(
    {
        "weight_read_by_attention": lambda: "nn.MultiheadAttention reads its weight without calling the layer",
        "weight_bypassed": lambda: "its weight is read without calling the layer",
        "layer_not_reached": lambda: "no call of the network reached it",
        "weight_computed": lambda: (
            "its weight is computed anew in every call (weight_norm, spectral_norm or another parametrization)"
        ),
        "weight_used_otherwise": lambda: "its weight is used by something other than torch.nn.functional.linear",
        "sides_not_multiples_of_8": lambda: "its dimensions are not multiples of 8, as a GPU's int8 product needs",
        "rows_below_17": lambda: "its input has 16 rows or fewer, and a GPU's int8 product needs 17 or more",
        "sides_not_multiples_of_16": lambda: "its dimensions are not multiples of 16, as fp8 kernels need",
        "layer_not_plain": lambda: "quantize_dynamic supports only plain nn.Linear",
    }
)

# Why what ran is not what was requested.
sentences(
    {
        "capture_failed": lambda component, error: f"{component}: not captured as a CUDA graph: {error}",
        "capture_incomplete": lambda component: (
            f"{component}: a replay of the captured CUDA graph does not write its whole output"
        ),
        "capture_elsewhere": lambda component: (
            f"{component}: not captured as a CUDA graph: two calls write their output to different addresses"
        ),
        "capture_not_replayed": lambda component, replays, calls: (
            f"{component}: {replays} replays of its CUDA graph in {calls} calls"
        ),
        "capture_skipped": lambda mode, count: f"mode {mode}: inductor did not capture {count} graph(s) as CUDA graphs",
        "capture_divided": lambda mode, parts: (
            f"mode {mode}: inductor divided its graph(s) into {parts} parts to capture some of them"
        ),
        "capture_of_some": lambda mode, count, graphs: (
            f"mode {mode}: inductor recorded {count} of {graphs} graph(s) as CUDA graphs"
        ),
        "capture_repeated": lambda mode: (
            f"mode {mode}: inductor recorded CUDA graphs again after the build, so some calls are not replays"
        ),
        "recompiled": lambda count: (
            f"{count} recompilation(s) after the build: the timed shapes are not the compiled ones"
        ),
        "no_weight_of_dtype": lambda dtype, found: f"no weight is {dtype}; found {found or 'no weights'}",
        "weights_of_several_dtypes": lambda found: f"weights of several dtypes: {found}",
        "quantised_layers": lambda reason, layers: f"{reason}; linear layers quantised: {layers}",
        "layers_not_quantised": lambda count, layers, component, some: (
            f"{count} of {layers} linear layers of {component} are not quantised ({', '.join(some)})"
        ),
        "layers_not_in_integers": lambda precision, component, count, layers: (
            f"{precision}: {count} of the {layers} quantised layers of {component} ran in integers"
        ),
        "no_integer_node": lambda precision, operators: (
            f"{precision} was requested, but no node that ran is one of {', '.join(operators)}"
        ),
        "runs_elsewise": lambda precision, layers: (
            f"{precision} was requested, but no convolution or matrix product runs in it: {layers}"
        ),
        "some_run_elsewise": lambda precision, layers: (
            f"{precision} was requested, but {layers} run in another precision"
        ),
        "nodes_elsewhere": lambda provider, count, nodes, some: (
            f"{provider} was requested, but {count} of {nodes} nodes ran elsewhere ({', '.join(some)})"
        ),
        "no_node_in_profile": lambda provider: (
            f"{provider} was requested, but ONNX Runtime's profile names no node that ran"
        ),
        "engine_of_other_dtype": lambda precision, component, tensors: (
            f"{precision} was requested, but the engine of {component} has the inputs or outputs {tensors}"
        ),
        "engine_not_inspected": lambda precision, component: (
            f"{precision}: the engine inspector names no known type in the engine of {component}, so the types of its "
            "layers are not verified; its output is in the file .layers.json beside the engine"
        ),
        "engine_layers_few": lambda precision, component, count, type, layers: (
            f"{precision}: {count} layers of the engine of {component} compute in {type}, fewer than a third of its "
            f"{layers} quantised ones"
        ),
        "engine_layers_none": lambda precision, type: (
            f"{precision} was requested, but no layer of any engine computes in {type}"
        ),
        "settings_changed": lambda settings: f"the row changed a process-wide setting: {', '.join(settings)}",
        "input_changed": _input_changed,
        "batch_changed": lambda: (
            f"the timed batch was changed while it was timed, so the iterations did not do the same work; {_OWN_COPY}"
        ),
    }
)
