/* Preloaded: refuses Node-API's external buffers like Electron, with napi_no_external_buffers_allowed. The binding finds
   these functions by dlsym. When the process ends, a file in $LOWRANK_REFUSALS records how often they were looked up and
   called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int looked_up, called;

static int refuse(void) {
  atomic_fetch_add(&called, 1);
  return 22; /* napi_no_external_buffers_allowed */
}

void *dlsym(void *handle, const char *name) {
  static void *(*next)(void *, const char *);
  const char *versions[] = {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"};
  for (int i = 0; next == NULL && i < 3; i++)
    next = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", versions[i]);
  if (strcmp(name, "napi_create_external_arraybuffer") == 0 || strcmp(name, "napi_create_external_buffer") == 0) {
    atomic_fetch_add(&looked_up, 1);
    return (void *)refuse;
  }
  return next(handle, name);
}

__attribute__((destructor)) static void report(void) {
  const char *folder = getenv("LOWRANK_REFUSALS");
  char path[4096];
  if (folder == NULL || looked_up == 0) return;
  snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
  FILE *file = fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "[%d, %d]", looked_up, called);
  fclose(file);
}
