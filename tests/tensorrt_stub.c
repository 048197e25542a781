/* The nine symbols that TensorRT's Python bindings need from its libraries to be imported, for tests/tensorrt_bindings.py.
 * Every factory returns NULL: names can be inspected, nothing runs. A builder and a runtime log an error first, the text
 * in TENSORRT_STUB_SAYS, as the libraries do. */
#include <stddef.h>
#include <stdlib.h>
#define ERROR 1
#define LOG 4 /* ILogger::log in the virtual table of version 11, behind two destructors and IVersionedInterface's two */
static void *fails(void *logger) {
  const char *text = getenv("TENSORRT_STUB_SAYS");
  if (text != NULL) (*(void (***)(void *, int, const char *))logger)[LOG](logger, ERROR, text);
  return NULL;
}
void *createInferBuilder_INTERNAL(void *l, int v) { return fails(l); }
void *createInferRefitter_INTERNAL(void *e, void *l, int v) { return NULL; }
void *createInferRuntime_INTERNAL(void *l, int v) { return fails(l); }
void *createNvOnnxParserRefitter_INTERNAL(void *r, void *l, int v) { return NULL; }
void *createNvOnnxParser_INTERNAL(void *n, void *l, int v) { return NULL; }
void *getBuilderPluginRegistry(int c) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
int getNvOnnxParserVersion(void) { return 110400; }
int initLibNvInferPlugins(void *l, const char *n) { return 1; }
