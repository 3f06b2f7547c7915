/* An addon that requests an external ArrayBuffer on loading; its exports are the resulting status. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

int napi_create_uint32(void *env, uint32_t value, void **result);

void *napi_register_module_v1(void *env, void *exports) {
  static char bytes[64];
  void *buffer, *result;
  int (*create)(void *, void *, size_t, void *, void *, void **);
  (void)exports;
  create = (int (*)(void *, void *, size_t, void *, void *, void **))dlsym(RTLD_DEFAULT, "napi_create_external_arraybuffer");
  napi_create_uint32(env, (uint32_t)create(env, bytes, sizeof bytes, NULL, NULL, &buffer), &result);
  return result;
}
