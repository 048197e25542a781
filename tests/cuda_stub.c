/* A CUDA runtime without a GPU, for tests/cuda_stub_fixture.py: the part that ONNX Runtime's CUDA provider needs to
 * open a session, and to run one without convolutions. Device memory is host memory, kernels do nothing, and calls that
 * make the host wait are counted. All other functions are generated: they return success and do nothing. The
 * declarations follow CUDA 13's documented interface, so that no CUDA header is needed. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int stub_waits = 0;     /* calls that make the host wait for the device, or may (cudaFree) */
size_t stub_bytes = 0;  /* device memory requested so far */

/* CUDA 13's cudaDeviceProp as far as it is filled here: offsets in bytes, and its size. */
enum { TOTAL_MEMORY = 288, SHARED_PER_BLOCK = 296, REGISTERS = 304, WARP = 308, THREADS = 320, BLOCK = 324, GRID = 336,
       MAJOR = 360, MULTIPROCESSORS = 384, THREADS_PER_SM = 604, SHARED_PER_SM = 624, SHARED_OPT_IN = 672, SIZE = 1008 };

static void number(void *properties, int offset, int value) { memcpy((char *)properties + offset, &value, sizeof value); }
static void size(void *properties, int offset, size_t value) { memcpy((char *)properties + offset, &value, sizeof value); }

int cudaGetDeviceProperties(void *p, int device) { /* an H100 */
    memset(p, 0, SIZE);
    strcpy(p, "stub");
    size(p, TOTAL_MEMORY, (size_t)80 << 30);
    size(p, SHARED_PER_BLOCK, 49152);
    size(p, SHARED_PER_SM, 233472);
    size(p, SHARED_OPT_IN, 232448);
    number(p, REGISTERS, 65536);
    number(p, WARP, 32);
    number(p, THREADS, 1024);
    number(p, THREADS_PER_SM, 2048);
    number(p, MAJOR, 9);
    number(p, MULTIPROCESSORS, 132);
    for (int i = 0; i < 3; i++) {
        number(p, BLOCK + 4 * i, i < 2 ? 1024 : 64);
        number(p, GRID + 4 * i, i ? 65535 : 2147483647);
    }
    return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 97 ? 232448 : 1;
    return 0;
}

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = (size_t)80 << 30; return 0; }
const char *cudaGetErrorString(int error) { return "no error of the stub"; }
const char *cudaGetErrorName(int error) { return "no error of the stub"; }

static int memory(void **p, size_t bytes) { return posix_memalign(p, 256, bytes ? bytes : 256) ? 2 : 0; }
int cudaMalloc(void **p, size_t bytes) { stub_bytes += bytes; return memory(p, bytes); }
int cudaFree(void *p) { stub_waits++; free(p); return 0; }
int cudaMallocHost(void **p, size_t bytes) { return memory(p, bytes); }
int cudaHostAlloc(void **p, size_t bytes, unsigned flags) { return memory(p, bytes); }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemset(void *p, int value, size_t bytes) { memset(p, value, bytes); return 0; }
int cudaMemsetAsync(void *p, int value, size_t bytes, void *stream) { memset(p, value, bytes); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *s) { memcpy(to, from, bytes); return 0; }

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { stub_waits++; memcpy(to, from, bytes); return 0; }
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t at, int kind) { stub_waits++; return 0; }
int cudaDeviceSynchronize(void) { stub_waits++; return 0; }
int cudaStreamSynchronize(void *stream) { stub_waits++; return 0; }
int cudaEventSynchronize(void *event) { stub_waits++; return 0; }

int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return 0; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads, size_t bytes,
                                                           unsigned flags) { *blocks = 1; return 0; }
