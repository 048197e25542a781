/* A stand-in for libnvidia-ml.so.1 with one GPU, compiled by tests/nvml_fixture.py: just enough of NVML for harness.devices.nvml,
 * played from variables that the test sets. Numbers are those of nvml.h: 0 success, 3 not supported, 7 insufficient size,
 * 9 driver not loaded, 13 function not found, 15 GPU is lost, 6 not found, 4 no permission. */
#include <stdint.h>
#include <string.h>
#include <time.h>

int stub_init = 0;               /* what nvmlInitWithFlags returns */
int stub_error = 0;              /* what every reading returns */
int stub_energy_error = 0;       /* what the energy counter returns */
int stub_instant_supported = 1;  /* whether the field of the instantaneous power is there */
int stub_is_mig = 0, stub_mig_mode = 0, stub_celsius = 61;
double stub_watts = 300.0, stub_period_s = 0.02;
double stub_clock_s = -1.0;      /* the time that the energy counter sees; below 0: the real one */
unsigned long long stub_reasons = 0, stub_thermal_ns = 0, stub_power_ns = 0;
unsigned long long stub_policy_ns = 0; /* of the policies 76 to 81: once, twice, ... six times this */
int stub_processes = 0;
unsigned stub_pids[8];
int stub_not_available = 0;      /* whether readings are there, and say "not available": all bits set */
int stub_growing = 0;            /* how often a process begins between the count of the processes and their list */
int stub_fields_known = 1;        /* 0: fields come back as they were given, with success */
double stub_reset_at_s = 0.0;    /* the energy counter begins anew at this time */
#define NA32 0xFFFFFFFFu
#define NA64 0xFFFFFFFFFFFFFFFFull

static double now(void) {
    struct timespec t;
    if (stub_clock_s >= 0) return stub_clock_s;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int nvmlInitWithFlags(unsigned flags) { return stub_init; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "an error"; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (stub_error) return stub_error;
    if (strcmp(uuid, stub_is_mig ? "MIG-stub" : "GPU-stub")) return 6;
    *device = (void *)1;
    return 0;
}
int nvmlDeviceIsMigDeviceHandle(void *d, unsigned *is) { *is = stub_is_mig && d == (void *)1; return 0; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **device) { *device = (void *)2; return 0; }
int nvmlDeviceGetUUID(void *d, char *text, unsigned size) {
    strncpy(text, stub_is_mig && d == (void *)1 ? "MIG-stub" : "GPU-stub", size);
    return stub_error;
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "595.10", size); return stub_error; }
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *mw) {
    if (stub_is_mig && d == (void *)1) return 3;
    *mw = stub_not_available ? NA32 : 700000;
    return stub_error;
}
int nvmlDeviceGetMigMode(void *d, unsigned *current, unsigned *pending) {
    *current = *pending = stub_mig_mode;
    return stub_error;
}
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {
    double t = now();
    uint64_t ticks = (uint64_t)((t - (t >= stub_reset_at_s ? stub_reset_at_s : 0.0)) / stub_period_s);
    if (stub_error) return stub_error;
    if (stub_energy_error) return stub_energy_error;
    if (stub_not_available) { *mj = NA64; return 0; }
    *mj = (unsigned long long)(ticks * stub_period_s * stub_watts * 1000.0);
    return 0;
}
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) {
    if (stub_error) return stub_error;
    *mw = stub_not_available ? NA32 : (unsigned)(stub_watts * 500.0); /* the mean over a second lags: half of what is drawn now */
    return 0;
}
struct field { uint32_t id, scope; int64_t stamp, latency; uint32_t type, ret; union { double d; uint32_t u; uint64_t q; } value; };
int nvmlDeviceGetFieldValues(void *d, int count, struct field *values) {
    int i;
    if (stub_error) return stub_error;
    for (i = 0; i < count; i++) {
        struct field *v = values + i;
        v->ret = 0;
        if (!stub_fields_known) continue;
        if (v->id == 186) { v->type = 1; v->value.u = (uint32_t)(stub_watts * 1000.0); v->ret = stub_instant_supported ? 0 : 3; }
        else if (v->id == 74) { v->type = 3; v->value.q = stub_power_ns; }
        else if (v->id == 75) { v->type = 3; v->value.q = stub_thermal_ns; }
        else if (v->id >= 76 && v->id <= 81) { v->type = 3; v->value.q = stub_policy_ns * (v->id - 75); }
        else v->ret = 3;
        if (stub_not_available) { v->value.q = NA64; }
    }
    return 0;
}
int nvmlDeviceGetClockInfo(void *d, int type, unsigned *mhz) {
    if (stub_is_mig && d == (void *)1) return 3;
    *mhz = stub_not_available ? NA32 : type == 1 ? 1980 : 2619;
    return stub_error;
}
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *celsius) {
    *celsius = stub_not_available ? NA32 : (unsigned)stub_celsius;
    return stub_error;
}
struct temperature { unsigned version; int sensor, celsius; };
int nvmlDeviceGetTemperatureV(void *d, struct temperature *t) {  /* the newer name */
    t->celsius = stub_not_available ? -1 : stub_celsius;
    return stub_error;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *d, unsigned long long *reasons) {
    *reasons = stub_not_available ? NA64 : stub_reasons;
    return stub_error;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *reasons) { /* its name before driver 535 */
    return nvmlDeviceGetCurrentClocksEventReasons(d, reasons);
}
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct process *found) {
    int i;
    if (stub_error) return stub_error;
    if (found && stub_growing > 0) { stub_growing--; return 7; }
    if (*count < (unsigned)stub_processes) { *count = stub_processes; return 7; }
    for (i = 0; i < stub_processes; i++) {
        struct process p = {stub_pids[i], 1 << 30, 0, 0};
        found[i] = p;
    }
    *count = stub_processes;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned *count, struct process *found) {
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, found);
}
struct memory { unsigned long long total, unused, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, unused, used; };
int nvmlDeviceGetMemoryInfo_v2(void *d, struct memory_v2 *m) {
    m->reserved = 1ULL << 30;  /* which the first version counts as used */
    m->used = stub_not_available ? NA64 : 2ULL << 30;
    return stub_error;
}
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) {
    m->total = 80ULL << 30; m->used = 3ULL << 30; m->unused = m->total - m->used;
    if (stub_not_available) m->used = NA64;
    return stub_error;
}
