// A GPU for tests: enough of CUDA to run the text of a kernel, as NVRTC sees it, on a CPU.
//
// The 32 threads of a warp are fibers on one thread of the host. A fiber runs until it meets a shuffle, leaves its
// value there and yields; when all that take part have come, each goes on with the value it asked for. Blocks of 128
// threads and the order of everything are those of the launch; only speed is not.
#pragma once
#include <immintrin.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define __CUDACC__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(n)

struct Dim3 { unsigned x, y, z; };
static Dim3 blockIdx, blockDim, threadIdx;
struct float4 { float x, y, z, w; };

namespace emulator {
constexpr int kWarp = 32, kBlock = 128;
constexpr size_t kStack = 256 << 10;

struct Warp {
    ucontext_t scheduler, lanes[kWarp];
    std::vector<char> stacks = std::vector<char>(kStack * kWarp);
    bool done[kWarp], waiting[kWarp];
    double offered[kWarp];
    int current;
    void (*body)(void*);
    void* argument;
};
static Warp warp;

static void run_lane() {
    warp.body(warp.argument);
    warp.done[warp.current] = true;
    swapcontext(&warp.lanes[warp.current], &warp.scheduler);
}

// All lanes of the mask meet; each gets what `from` offered. A lane of the mask that has left the kernel, as CUDA
// forbids, is an error.
static double meet(unsigned mask, double value, int from) {
    const int lane = warp.current;
    warp.offered[lane] = value;
    for (int round = 0; round < 2; ++round) {  // first everyone's value is there, then everyone has read
        warp.waiting[lane] = true;
        for (int l = 0; l < kWarp; ++l)
            if (mask >> l & 1 && warp.done[l]) std::fprintf(stderr, "a lane of the mask has left\n"), std::abort();
        swapcontext(&warp.lanes[lane], &warp.scheduler);
        if (round == 0) value = warp.offered[from];
    }
    return value;
}

static void run_warp(unsigned first) {
    for (int l = 0; l < kWarp; ++l) {
        warp.done[l] = warp.waiting[l] = false;
        getcontext(&warp.lanes[l]);
        warp.lanes[l].uc_stack.ss_sp = warp.stacks.data() + kStack * l;
        warp.lanes[l].uc_stack.ss_size = kStack;
        warp.lanes[l].uc_link = nullptr;
        makecontext(&warp.lanes[l], run_lane, 0);
    }
    for (bool left = true; left;) {
        left = false;
        for (int l = 0; l < kWarp; ++l) {
            if (warp.done[l]) continue;
            left = true;
            warp.current = l;
            threadIdx.x = first + l;
            swapcontext(&warp.scheduler, &warp.lanes[l]);
        }
    }
}
}  // namespace emulator

// Teams are aligned, so the lane to read from is found within the team's `width` lanes.
template <class V> static V shuffle(unsigned mask, V v, int from) { return V(emulator::meet(mask, double(v), from)); }
template <class V> static V __shfl_xor_sync(unsigned mask, V v, int other, int) {
    return shuffle(mask, v, emulator::warp.current ^ other);
}
template <class V> static V __shfl_up_sync(unsigned mask, V v, int lanes, int width) {
    const int at = emulator::warp.current;
    return shuffle(mask, v, at % width >= lanes ? at - lanes : at);
}
template <class V> static V __shfl_sync(unsigned mask, V v, int from, int width) {
    return shuffle(mask, v, emulator::warp.current / width * width + from);
}
static void __syncwarp(unsigned mask) { emulator::meet(mask, 0, emulator::warp.current); }
template <class V> static void atomicAdd(V* p, V v) { *p += v; }
static float __int_as_float(int v) { float f; std::memcpy(&f, &v, 4); return f; }
static double __longlong_as_double(long long v) { double d; std::memcpy(&d, &v, 8); return d; }
static long long __double2ll_rn(double v) { return std::llrint(v); }

// The kernels' own integer types, which on a host are the standard library's and other names for the same.
#define int64_t gpu_int64_t
#define uint64_t gpu_uint64_t
#define int32_t gpu_int32_t
#define uint32_t gpu_uint32_t
#define uint8_t gpu_uint8_t
#include "common.h"

namespace fields {
FIELDS_FN float widen(half_t x) { return _cvtsh_ss(x.bits); }
FIELDS_FN void narrow(float x, half_t& to) { to.bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
}  // namespace fields

#undef FIELDS_ENTRY
#define FIELDS_ENTRY(name, type)                                                               \
    static void name##_lane(void* given) {                                                       \
        const auto& job = *static_cast<std::pair<const type*, int64_t>*>(given);                 \
        const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / fields::kTeam;      \
        if (i < job.second) (*job.first)(i);                                                     \
    }                                                                                            \
    extern "C" void name(const void* kernel, int64_t n) {                                        \
        std::pair<const type*, int64_t> job{static_cast<const type*>(kernel), n};                \
        emulator::warp.body = name##_lane, emulator::warp.argument = &job;                       \
        blockDim = {emulator::kBlock, 1, 1};                                                     \
        const int64_t blocks = (n * fields::kTeam + emulator::kBlock - 1) / emulator::kBlock;    \
        for (int64_t b = 0; b < blocks; ++b) {                                                   \
            blockIdx = {unsigned(b), 0, 0};                                                      \
            for (int w = 0; w < emulator::kBlock; w += emulator::kWarp) emulator::run_warp(w);   \
        }                                                                                        \
    }
