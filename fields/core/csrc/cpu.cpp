// The CPU library: every kernel, and the two switches of its host.
#include "parallel.h"
#include "common.h"
#include "grid.h"
#include "volrend.h"
#include "march.h"
#include "visible.h"
#include "rays.h"
#include "decoder.h"
#include "networks.h"
#include "moments.h"
#include "alignment.h"
#include "neighbours.h"
#include "pdf.h"
#include "cloud.h"
#include "box_adam.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

extern "C" {

// The SHA-256 of this folder's files, so that a caller can tell whether it reads the text that was compiled.
__attribute__((visibility("default"))) const char* fields_source() { return FIELDS_SOURCE; }

// Gives the library torch's team of threads: the address of GOMP_parallel in the OpenMP runtime torch has loaded.
__attribute__((visibility("default"))) void fields_use_team(void* gomp_parallel) {
    fields::team_run() = reinterpret_cast<fields::TeamRun>(gomp_parallel);
}

// Training allocates and frees the same tens of megabytes each iteration. By default glibc returns such blocks to
// the system every time, and the page faults of getting them back cost more than some kernels do. So: no block of its
// own mapping, one arena for all threads (others cannot hold large blocks), and nothing is trimmed.
__attribute__((visibility("default"))) void fields_keep_freed_memory() {
#if defined(__GLIBC__)
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 2047 << 20);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}
}
