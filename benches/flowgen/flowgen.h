/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page that flowgen shares with the script that measures: the script maps the same file.
 * Every field is a naturally aligned little-endian word. `run`, `limit` and `rate` are written by the script, everything
 * else by the process that polls; one writer a field, so plain loads and stores are enough.
 */
#ifndef FLOWGEN_H
#define FLOWGEN_H

#include <stdint.h>

#define FLOWGEN_MAGIC 0x31304e4547574c46ull /* "FLWGEN01" */
#define FLOWGEN_PORTS 2

/* One receive queue: a cache line of its own, written by the thread that polls it. */
struct flowgen_port {
	uint64_t packets;    /* delivered to the application */
	uint64_t calls;      /* bursts polled, empty ones too */
	uint64_t paused;     /* bursts taken back because `run` was 0: moving means that the poller has seen it */
	uint64_t passes;     /* full rounds over all flows */
	uint64_t taken_back; /* packets that the device counts as received and the application never saw */
	uint32_t tid;        /* kernel thread id of the poller */
	uint32_t port_id;    /* DPDK port id, plus 1 (0: no such port yet) */
	uint64_t opened;     /* first packets of new flows delivered ("new", "connect") */
	uint64_t behind;     /* the most of them that were due at a poll under `rate`, since `run` became 1 */
} __attribute__((aligned(64)));

struct flowgen_ctl {
	uint64_t magic;    /* written last */
	uint64_t tsc_hz;
	uint32_t run;      /* 1: deliver packets, 0: deliver none */
	uint32_t flows;
	uint64_t limit;    /* "new", "connect": no flow is opened once so many are; 0: no limit */
	uint64_t rate;     /* "new", "connect": flows to open in a second, counted from when `run` became 1; 0: no pace */
	uint64_t reserved[3];
	struct flowgen_port port[FLOWGEN_PORTS];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct flowgen_port) == 64, "the script reads these offsets");
_Static_assert(sizeof(struct flowgen_ctl) == 64 * (1 + FLOWGEN_PORTS), "the script reads these offsets");

#endif
