/* A stand-in for libnvidia-ml.so.1 with the few symbols that the nvml check asks for.
 * FAKE_NVML_GPUS: how many; FAKE_NVML_INIT: return code of init; FAKE_NVML_RC: "INDEX=CODE";
 * FAKE_NVML_HANG: hang when this GPU's temperature is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static int fails(long gpu) {
  long index = -1, code = 0;
  const char *text = getenv("FAKE_NVML_RC");
  if (text) sscanf(text, "%ld=%ld", &index, &code);
  return index == gpu ? (int)code : 0;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)number("FAKE_NVML_INIT", 0); }
int nvmlInit_v2(void) { return (int)number("FAKE_NVML_INIT", 0); }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "some error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("FAKE_NVML_GPUS", 1); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)(long)(index + 1);
  return 0;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
  snprintf(uuid, length, "GPU-%ld", (long)handle - 1);
  return 0;
}

int nvmlDeviceGetSerial(void *handle, char *serial, unsigned length) {
  snprintf(serial, length, "165%ld", (long)handle - 1);
  return 0;
}

static int temperature(long gpu) {
  if (number("FAKE_NVML_HANG", -1) == gpu)
    for (;;) pause();
  return fails(gpu);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
  (void)sensor;
  *degrees = 40;
  return temperature((long)handle - 1);
}

int nvmlDeviceGetTemperatureV(void *handle, void *reading) {
  (void)reading;
  return temperature((long)handle - 1);
}
