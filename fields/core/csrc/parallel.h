// Running the items of a kernel on the cores of a CPU.
//
// torch brings an OpenMP runtime of its own; a second team of threads would fight with it for the cores (its
// idle workers spin). So the work is handed to torch's team when the Python side has found it, through
// GOMP_parallel, the one entry point every OpenMP runtime offers; otherwise to plain threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace fields {

typedef void (*TeamRun)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
inline TeamRun& team_run() {
    static TeamRun run = nullptr;
    return run;
}

template <class Kernel> struct Job {
    const Kernel& kernel;
    int64_t n, grain;
    std::atomic<int64_t> next{0};

    // Chunks are taken in order as workers become free. Which worker takes a chunk never matters: each item
    // writes only what it owns.
    static void work(void* self) {
        Job& job = *static_cast<Job*>(self);
        const Kernel kernel = job.kernel;  // a copy nothing else can point to: its members can stay in registers
        for (int64_t begin; (begin = job.next.fetch_add(job.grain)) < job.n;) {
            const int64_t end = std::min(begin + job.grain, job.n);
            for (int64_t i = begin; i < end; ++i) kernel(i);
        }
    }
};

template <class Kernel> void parallel_for(int64_t n, int64_t grain, int threads, const Kernel& kernel) {
    Job<Kernel> job{kernel, n, std::max<int64_t>(grain, 1)};
    const int64_t chunks = (n + job.grain - 1) / job.grain;
    threads = static_cast<int>(std::min<int64_t>(threads, chunks));
    if (threads <= 1) return Job<Kernel>::work(&job);
    if (team_run()) return team_run()(&Job<Kernel>::work, &job, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(&Job<Kernel>::work, static_cast<void*>(&job));
    Job<Kernel>::work(&job);
    for (auto& t : others) t.join();
}

}  // namespace fields
