/* A stand-in for libnvidia-ml.so.1, driven by a scenario file ($FAKE_NVML), so that the real pynvml
 * runs without a GPU. Each line is NAME=VALUE for the node, *.NAME=VALUE for every GPU, or
 * 3.NAME=VALUE for one; the last line that fits wins. NAME is a reading (names below), or
 *   rc.FUNCTION    the code that the function returns, without "nvml" and "Device", e.g. 3.rc.GetUUID=15
 *   rc             the code that every function of the GPU returns (15: the GPU is lost)
 *   hang.FUNCTION  any value: the function never returns
 *   event          GPU:CODE, an XID; each such line is told once, in their order
 * The file is read anew at each call, so that a test may change it while a reader runs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPUS_MAX 64
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, TIMEOUT = 10 };
typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { int index; } Gpu;
static Gpu gpus[GPUS_MAX];
static int initialised;

/* Find NAME for a GPU (-1: the node); return whether it stands there. */
static int find(int gpu, const char *name, char *value, size_t size) {
  const char *path = getenv("FAKE_NVML");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[512], own[128], all[128];
  int found = 0;
  if (!file) return 0;
  if (gpu < 0) snprintf(own, sizeof own, "%s=", name), snprintf(all, sizeof all, "%s=", name);
  else snprintf(own, sizeof own, "%d.%s=", gpu, name), snprintf(all, sizeof all, "*.%s=", name);
  while (fgets(line, sizeof line, file)) {
    const char *key = strncmp(line, own, strlen(own)) == 0 ? own : all;
    if (strncmp(line, key, strlen(key)) != 0) continue;
    line[strcspn(line, "\r\n")] = 0;
    snprintf(value, size, "%s", line + strlen(key));
    found = 1;
  }
  fclose(file);
  return found;
}

static u64 number(int gpu, const char *name, u64 otherwise) {
  char value[256];
  return find(gpu, name, value, sizeof value) ? strtoull(value, NULL, 0) : otherwise;
}

static int text(int gpu, const char *name, const char *otherwise, char *out, u32 size) {
  char value[256];
  if (!find(gpu, name, value, sizeof value)) snprintf(value, sizeof value, "%s", otherwise);
  if (strlen(value) + 1 > size) return TOO_SMALL;
  strcpy(out, value);
  return SUCCESS;
}

/* Hang, or return the code that the scenario wants of this function. */
static int enter(const char *function, void *handle, int *gpu) {
  char name[128], value[64];
  const char *brief = function + (strncmp(function, "nvmlDevice", 10) == 0 ? 10 : 4);
  *gpu = handle ? ((Gpu *)handle)->index : -1;
  snprintf(name, sizeof name, "hang.%s", brief);
  if (find(*gpu, name, value, sizeof value))
    for (;;) pause();
  snprintf(name, sizeof name, "rc.%s", brief);
  int code = (int)number(*gpu, name, 0);
  if (!code && handle) code = (int)number(*gpu, "rc", 0);
  return code;
}

#define ENTER(handle)                          \
  int gpu;                                     \
  int code = enter(__func__, handle, &gpu);    \
  if (code) return code;                       \
  (void)gpu
#define U32(function, name, otherwise)         \
  int function(void *handle, u32 *out) {       \
    ENTER(handle);                             \
    *out = (u32)number(gpu, name, otherwise);  \
    return SUCCESS;                            \
  }
#define TEXT(function, name, otherwise)                      \
  int function(void *handle, char *out, u32 size) {          \
    ENTER(handle);                                           \
    return text(gpu, name, otherwise, out, size);            \
  }

/* the node */
int nvmlInitWithFlags(u32 flags) {
  (void)flags;
  int gpu, code = enter("nvmlInit", NULL, &gpu);
  if (code) return code;
  for (int one = 0; one < GPUS_MAX; one++) gpus[one].index = one;
  initialised = 1;
  return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return initialised = 0; }
const char *nvmlErrorString(int code) {
  switch (code) {
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "some error";
  }
}
int nvmlSystemGetDriverVersion(char *out, u32 size) {
  return text(-1, "driver", "550.90.07", out, size);
}
int nvmlSystemGetCudaDriverVersion(int *out) {
  *out = (int)number(-1, "cuda", 12040);
  return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlDeviceGetCount_v2(u32 *out) {
  ENTER(NULL);
  if (!initialised) return UNINITIALIZED;
  *out = (u32)number(-1, "count", 8);
  return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **out) {
  if (index >= number(-1, "count", 8) || index >= GPUS_MAX) return INVALID_ARGUMENT;
  *out = &gpus[index];
  return (int)number((int)index, "rc.GetHandleByIndex_v2", 0);
}

/* who it is */
TEXT(nvmlDeviceGetName, "name", "NVIDIA H100 80GB HBM3")
TEXT(nvmlDeviceGetVbiosVersion, "vbios", "96.00.89.00.01")
int nvmlDeviceGetUUID(void *handle, char *out, u32 size) {
  char otherwise[64];
  ENTER(handle);
  snprintf(otherwise, sizeof otherwise, "GPU-%d", gpu);
  return text(gpu, "uuid", otherwise, out, size);
}
int nvmlDeviceGetSerial(void *handle, char *out, u32 size) {
  char otherwise[64];
  ENTER(handle);
  snprintf(otherwise, sizeof otherwise, "165%d", gpu);
  return text(gpu, "serial", otherwise, out, size);
}
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(void *handle, Pci *out) {
  ENTER(handle);
  memset(out, 0, sizeof *out);
  snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", 0x18 + gpu * 0x11);
  return SUCCESS;
}
int nvmlDeviceValidateInforom(void *handle) { ENTER(handle); return SUCCESS; }

/* events: whoever registered is told of each XID that came since */
typedef struct { void *device; u64 type, data; u32 gpu_instance, compute_instance; } Event;
static int registered[GPUS_MAX], told;
int nvmlEventSetCreate(void **out) {
  static int set;
  ENTER(NULL);
  *out = &set;
  return SUCCESS;
}
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
int nvmlDeviceGetSupportedEventTypes(void *handle, u64 *out) { ENTER(handle); *out = 8; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *handle, u64 types, void *set) {
  (void)set;
  ENTER(handle);
  registered[gpu] = (types & 8) != 0;
  return SUCCESS;
}
static int next_event(u32 *gpu, u64 *xid) {
  const char *path = getenv("FAKE_NVML");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[512];
  int seen = 0, found = 0;
  while (file && !found && fgets(line, sizeof line, file))
    if (sscanf(line, "event=%u:%llu", gpu, xid) == 2 && ++seen > told) found = 1;
  if (file) fclose(file);
  told += found;
  return found && *gpu < GPUS_MAX && registered[*gpu];
}
int nvmlEventSetWait_v2(void *set, Event *out, u32 limit) {
  u32 which;
  u64 xid;
  (void)set;
  ENTER(NULL);
  for (u32 waited = 0; waited <= limit; waited += 20, usleep(20000)) {
    if (!next_event(&which, &xid)) continue;
    *out = (Event){&gpus[which], 8, xid, 0xFFFFFFFF, 0xFFFFFFFF};
    return SUCCESS;
  }
  return TIMEOUT;
}

/* memory */
typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
  ENTER(handle);
  out->total = number(gpu, "memory.total", 85520809984ULL);
  out->used = number(gpu, "memory.used", 0) + number(gpu, "memory.reserved", 629145600);
  out->free = out->total - out->used;
  return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory2 *out) {
  ENTER(handle);
  out->total = number(gpu, "memory.total", 85520809984ULL);
  out->used = number(gpu, "memory.used", 0);
  out->reserved = number(gpu, "memory.reserved", 629145600);
  out->free = out->total - out->used - out->reserved;
  return SUCCESS;
}
int nvmlDeviceGetEccMode(void *handle, u32 *current, u32 *pending) {
  ENTER(handle);
  *current = (u32)number(gpu, "ecc.mode", 1);
  *pending = *current;
  return SUCCESS;
}
int nvmlDeviceGetMemoryErrorCounter(void *handle, u32 type, u32 counter, u32 place, u64 *out) {
  char name[64];
  ENTER(handle);
  snprintf(name, sizeof name, "ecc.%s.%s.%s", type ? "uncorrected" : "corrected",
           counter ? "aggregate" : "volatile", place == 7 ? "sram" : "dram");
  *out = number(gpu, name, 0);
  return SUCCESS;
}
int nvmlDeviceGetRemappedRows(void *handle, u32 *corrected, u32 *uncorrected, u32 *pending,
                              u32 *failure) {
  ENTER(handle);
  *corrected = (u32)number(gpu, "rows.corrected", 0);
  *uncorrected = (u32)number(gpu, "rows.uncorrected", 0);
  *pending = (u32)number(gpu, "rows.pending", 0);
  *failure = (u32)number(gpu, "rows.failure", 0);
  return SUCCESS;
}
typedef struct { u32 max, high, partial, low, none; } Histogram;
int nvmlDeviceGetRowRemapperHistogram(void *handle, Histogram *out) {
  ENTER(handle);
  out->max = (u32)number(gpu, "histogram.max", 640);
  out->high = out->partial = 0;
  out->low = (u32)number(gpu, "histogram.low", 0);
  out->none = (u32)number(gpu, "histogram.none", 0);
  return SUCCESS;
}
int nvmlDeviceGetRetiredPagesPendingStatus(void *handle, u32 *out) {
  char value[16];
  ENTER(handle);
  if (!find(gpu, "retired.pending", value, sizeof value)) return NOT_SUPPORTED;
  *out = (u32)strtoul(value, NULL, 0);
  return SUCCESS;
}

/* heat, clocks, power */
int nvmlDeviceGetTemperature(void *handle, u32 sensor, u32 *out) {
  (void)sensor;
  ENTER(handle);
  *out = (u32)number(gpu, "temperature", 34);
  return SUCCESS;
}
int nvmlDeviceGetTemperatureThreshold(void *handle, u32 which, u32 *out) {
  ENTER(handle);
  *out = (u32)(which == 2 ? number(gpu, "memory.temperature.max", 95)
                          : number(gpu, "temperature.max", 87));
  return which == 2 || which == 3 ? SUCCESS : NOT_SUPPORTED;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, u64 *out) {
  ENTER(handle);
  *out = number(gpu, "reasons", 1);
  return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *handle, u32 type, u32 *out) {
  ENTER(handle);
  *out = (u32)number(gpu, type == 2 ? "clock.memory" : "clock.sm", type == 2 ? 2619 : 345);
  return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(void *handle, u32 type, u32 *out) {
  ENTER(handle);
  *out = (u32)number(gpu, type == 2 ? "clock.memory.max" : "clock.sm.max", type == 2 ? 2619 : 1980);
  return SUCCESS;
}
U32(nvmlDeviceGetPowerUsage, "power", 70000)
U32(nvmlDeviceGetEnforcedPowerLimit, "power.limit", 700000)
U32(nvmlDeviceGetPowerManagementDefaultLimit, "power.default", 700000)
typedef struct { u32 gpu, memory; } Utilisation;
int nvmlDeviceGetUtilizationRates(void *handle, Utilisation *out) {
  ENTER(handle);
  out->gpu = (u32)number(gpu, "utilisation", 0);
  out->memory = 0;
  return SUCCESS;
}

/* how it was left */
U32(nvmlDeviceGetPersistenceMode, "persistence", 1)
U32(nvmlDeviceGetComputeMode, "compute.mode", 0)
int nvmlDeviceGetMigMode(void *handle, u32 *current, u32 *pending) {
  ENTER(handle);
  *current = (u32)number(gpu, "mig", 0);
  *pending = (u32)number(gpu, "mig.pending", *current);
  return SUCCESS;
}
typedef struct { u32 pid; u64 memory; u32 gpu_instance, compute_instance; } Process;
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, u32 *count, Process *out) {
  ENTER(handle);
  u32 pid = (u32)number(gpu, "process", 0), room = *count;
  *count = pid ? 1 : 0;
  if (pid && room < 1) return TOO_SMALL;
  if (pid) out[0] = (Process){pid, 1u << 30, 0xFFFFFFFF, 0xFFFFFFFF};
  return SUCCESS;
}

/* links */
U32(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width", 16)
U32(nvmlDeviceGetMaxPcieLinkWidth, "pcie.width.max", 16)
U32(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.generation", 5)
U32(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.generation.max", 5)
U32(nvmlDeviceGetPcieReplayCounter, "pcie.replays", 0)
int nvmlDeviceGetNvLinkState(void *handle, u32 link, u32 *out) {
  char name[48];
  ENTER(handle);
  if (link >= number(gpu, "nvlinks", 18)) return INVALID_ARGUMENT;
  snprintf(name, sizeof name, "nvlink.%u.state", link);
  *out = (u32)number(gpu, name, 1);
  return SUCCESS;
}
int nvmlDeviceGetNvLinkErrorCounter(void *handle, u32 link, u32 counter, u64 *out) {
  static const char *names[] = {"replay", "recovery", "crc_flit", "crc_data"};
  char name[48];
  ENTER(handle);
  if (link >= number(gpu, "nvlinks", 18) || counter > 3) return INVALID_ARGUMENT;
  snprintf(name, sizeof name, "nvlink.%u.%s", link, names[counter]);
  *out = number(gpu, name, 0);
  return SUCCESS;
}
typedef struct { u32 version; unsigned char cluster[16]; int status; u32 clique; unsigned char state;
                 u32 health; } Fabric;
int nvmlDeviceGetGpuFabricInfoV(void *handle, Fabric *out) {
  ENTER(handle);
  out->status = (int)number(gpu, "fabric.status", 0);
  out->clique = 0;
  out->state = (unsigned char)number(gpu, "fabric.state", 3);
  out->health = (u32)number(gpu, "fabric.health", 2);
  return SUCCESS;
}
typedef struct { u32 field, scope; int64_t at, latency; int type, code;
                 union { double d; u64 u; u32 ui; } value; } Value;
int nvmlDeviceGetFieldValues(void *handle, int count, Value *out) {
  char name[32], value[32];
  ENTER(handle);
  for (int one = 0; one < count; one++) {
    snprintf(name, sizeof name, "field.%u", out[one].field);
    int there = find(gpu, name, value, sizeof value);
    out[one].code = there ? SUCCESS : NOT_SUPPORTED;
    out[one].value.u = there ? strtoull(value, NULL, 0) : 0;
  }
  return SUCCESS;
}
