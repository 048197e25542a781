/* The nine symbols that TensorRT's Python bindings need from its libraries to be imported, for tests/tensorrt_bindings.py.
 * Every factory returns NULL: names can be inspected, nothing runs. */
#include <stddef.h>
void *createInferBuilder_INTERNAL(void *l, int v) { return NULL; }
void *createInferRefitter_INTERNAL(void *e, void *l, int v) { return NULL; }
void *createInferRuntime_INTERNAL(void *l, int v) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *r, void *l, int v) { return NULL; }
void *createNvOnnxParser_INTERNAL(void *n, void *l, int v) { return NULL; }
void *getBuilderPluginRegistry(int c) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
int getNvOnnxParserVersion(void) { return 110400; }
int initLibNvInferPlugins(void *l, const char *n) { return 1; }
