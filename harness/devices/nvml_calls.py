"""Single readings of NVML through nvidia-ml-py. A missing one is None or a reason.

A device, a driver or a permission may refuse any call, an old library may lack it, and a driver may answer with all
bits set, which means "not available". None of these ever becomes a number. Each function of nvidia-ml-py is named in
its call; a renamed one has both names there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from harness.reasons import Reason

T = TypeVar("T")

NOT_AVAILABLE: Final = 0xFFFFFFFF
NOT_AVAILABLE_64: Final = 0xFFFFFFFFFFFFFFFF
# By the type's number in nvml.h (an older nvidia-ml-py lacks the names): the value's member, and its value for
# "absent".
MEMBERS: Final[Mapping[int, tuple[str, float]]] = {
    0: ("dVal", math.nan),  # double
    1: ("uiVal", NOT_AVAILABLE),  # unsigned int
    2: ("ulVal", NOT_AVAILABLE_64),  # unsigned long
    3: ("ullVal", NOT_AVAILABLE_64),  # unsigned long long
    4: ("sllVal", -1),  # signed long long
    5: ("siVal", -1),  # signed int
    6: ("usVal", 0xFFFF),  # unsigned short
}
UNNAMED: Final = "None"  # the text that nvidia-ml-py gives an error of a number that it does not know
ATTEMPTS: Final = 3  # to read a list of processes that grows meanwhile


def failure(error: Exception | None) -> Reason:
    """The reason of what NVML raised: "NVML: Not Supported", or the number of an error that it cannot name."""
    try:
        text = str(error)
    except (TypeError, *failures()):  # type: ignore[misc]  # the library cannot even name its error
        text = UNNAMED
    if text == UNNAMED:
        return Reason("nvml_error_number", {"number": getattr(error, "value", None)})
    return Reason("nvml_error", {"error": text})


def failures() -> tuple[type[Exception], ...]:
    """What nvidia-ml-py raises. Its error for a library that is older than the call is not an NVMLError, text that the
    driver does not write may not decode, and an older nvidia-ml-py lacks the call itself."""
    import pynvml

    return pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError, AttributeError


def never_split() -> tuple[type[Exception], ...]:
    """The errors of a GPU without MIG, and of a library or an nvidia-ml-py that is older than MIG."""
    import pynvml

    return (
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_FunctionNotFound,
        AttributeError,
    )


def read(call: Callable[[], T]) -> T | None:
    """One reading; None if this device, driver or permission does not give it."""
    try:
        return call()
    except failures():
        return None


def number(call: Callable[[], int], absent: int = NOT_AVAILABLE) -> int | None:
    """One reading; None also if the driver answers that it is not available."""
    value = read(call)
    return None if value == absent else value


def field(handle: Any, name: str) -> float | None:
    """One field value, by the type that NVML reports; `name` is its constant in nvidia-ml-py. None if it is not
    supported or not available."""
    import pynvml

    found = read(lambda: pynvml.nvmlDeviceGetFieldValues(handle, [getattr(pynvml, name)]))
    if found is None or found[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    if found[0].valueType not in MEMBERS or _untouched(found[0]):
        return None
    member, absent = MEMBERS[found[0].valueType]
    value = float(getattr(found[0].value, member))
    # Only powers and times are read, which are never negative.
    return value if math.isfinite(value) and value >= 0 and value != float(absent) else None


def _untouched(answer: Any) -> bool:
    """Whether the driver left the answer unchanged: no time, no type, no bits. For a field that it does not know it may
    do so and report success."""
    return not answer.timestamp and answer.valueType == 0 and not answer.value.ullVal


def throttle_reasons(handle: Any) -> int | None:
    """The bits, by the call's name before and since driver 535."""
    import pynvml

    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        found = number(lambda name=name: getattr(pynvml, name)(handle), NOT_AVAILABLE_64)  # type: ignore[misc]
        if found is not None:
            return found
    return None


def processes(handle: Any) -> list[int] | None:
    """The IDs of the processes that compute on the device; None if the driver does not report them."""
    import pynvml

    for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2"):
        for _ in range(ATTEMPTS):
            try:
                return [process.pid for process in getattr(pynvml, name)(handle)]
            except pynvml.NVMLError_InsufficientSize:  # one more began between the count and the list
                continue
            except failures():
                break
    return None
