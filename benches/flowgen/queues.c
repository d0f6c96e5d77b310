/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A traffic generator for several workers: flowgen.c's UDP on net_null devices with many receive queues and RSS, which say by
 * which queue a flow comes. For benches/scaling.sh.
 *
 * Preloaded (LD_PRELOAD), it is the device (tests/rssdev/device.h): it takes key and table, and so knows the hash and the owner of
 * every flow. Each worker has as many flows of its own as each other. Of those of every worker the first so many come by the queues of
 * others, always the same ones by the same queue, in both directions; the rest come by its own. Each queue walks the flows
 * that come by it, one pass in another order than the last, from a list that was made when it began to run: what a packet costs here is
 * the same whatever the share.
 *
 * The first port sends the originals, the second one the replies. What is sent is counted where it is handed to the driver.
 *
 * Environment:
 *   FLOWGEN_CTL     file to share with the measuring script (struct queues_ctl); required, or nothing is touched
 *   FLOWGEN_FLOWS   flows in all, of which each queue has an even share (default 1000)
 *   FLOWGEN_SEED    which addresses, and in which orders (default 1)
 *   HAECHI_RSSDEV   what the devices are, see device.h
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_mbuf.h>

#include "../../tests/rssdev/device.h"
#include "flowgen.h"
#include "frames.h"
#include "walk.h"

#define SIDES 2u
#define MAX_FLOWS (1u << 24)
#define ASTRAY (1u << 31) /* in a flow's number: it comes by a queue that is not its owner's */

/* One receive queue of one port, and the transmit queue of the same number; up to `port_id` as struct flowgen_port. */
struct queues_lane {
	uint64_t packets;    /* delivered to the application */
	uint64_t calls;
	uint64_t paused;
	uint64_t passes;     /* since `run` was 0 */
	uint64_t taken_back;
	uint32_t tid;
	uint32_t port_id;
	uint64_t sent;       /* handed to the driver by the transmit queue */
	uint64_t astray;     /* of `packets`, those whose owner polls another queue */
} __attribute__((aligned(64)));

enum run { NONE, BOTH, ORIGINALS };

/* As struct flowgen_ctl, but for `share` and the lanes: port 0 and 1 of queue 0, then of queue 1, and so on. Two cache lines of one queue
 * lie beside each other, and none of two: processors fetch them in such pairs. */
struct queues_ctl {
	uint64_t magic;
	uint64_t tsc_hz;
	uint32_t run;        /* enum run */
	uint32_t flows;
	uint64_t share;      /* of 1,000 flows, so many come by another worker's queue; to be changed while `run` is 0 */
	uint64_t reserved[12];
	struct queues_lane lane[SIDES * QUEUES];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct queues_lane) == 64 && sizeof(struct queues_ctl) == 64 * (2 + SIDES * QUEUES), "the script reads these offsets");

/* A flow on a port. */
struct flow {
	uint32_t number; /* and ASTRAY */
	uint32_t hash;   /* the device's */
};

/* What a queue's poller works with. */
struct lane {
	struct flow *flows; /* those that come by it: `count` */
	uint32_t count, at, stride, left;
	uint64_t random;
	uint64_t flags;     /* of an mbuf: it has a hash, or nothing */
	const struct shape *shape;
	struct queues_lane *shared;
	uint16_t queue;
	bool reply, running;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct lane) == 64, "two of them are a pair of cache lines");

static struct queues_ctl *ctl;
static struct lane lanes[QUEUES][SIDES] __attribute__((aligned(128)));
static struct shape shapes[SIDES];
static uint32_t flows;

/* All flows by port and owner: as many of each, chosen once, when the devices have their keys. */
static struct flow *chosen[SIDES][QUEUES];
static uint32_t of_each;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *room_for(uint32_t count)
{
	void *room = calloc(count, sizeof(struct flow));

	if (room == NULL)
		die("no memory for the flows");
	return room;
}

/* What key and table of a port's device say of a flow. */
static uint16_t owner_of(unsigned int side, uint32_t number, uint32_t *hash)
{
	uint8_t frame[MIN_LENGTH + 64] __attribute__((aligned(64)));
	const struct device *d = &devices[side];

	write_frame(&shapes[side], number, frame, MIN_LENGTH);
	*hash = hash_of(d, frame + 26, frame + 30, 4, frame[34] << 8 | frame[35], frame[36] << 8 | frame[37], d->udp);
	return queue_of(d, *hash);
}

static void choose_flows(void)
{
	const uint32_t queues = devices[0].queues;
	uint32_t count[QUEUES] = { 0 }, missing = flows / queues * queues, number;

	of_each = flows / queues;
	for (uint32_t side = 0; side < SIDES; side++)
		for (uint32_t queue = 0; queue < queues; queue++)
			chosen[side][queue] = room_for(of_each);
	for (number = 0; missing > 0; number++) {
		uint32_t hashes[SIDES];
		const uint16_t owner = owner_of(0, number, &hashes[0]);

		if (owner_of(1, number, &hashes[1]) != owner)
			die("the two ports place a flow on two queues");
		if (number == MAX_FLOWS)
			die("not as many flows for each queue");
		if (count[owner] == of_each)
			continue;
		for (uint32_t side = 0; side < SIDES; side++)
			chosen[side][owner][count[owner]] = (struct flow){ number, hashes[side] };
		count[owner]++;
		missing--;
	}
}

static void new_pass(struct lane *l)
{
	l->left = pass_length(l->count);
	l->at = next_random(&l->random) % l->count;
	l->stride = new_stride(&l->random, l->count);
}

/* `run` is no longer 0: which flows come by this queue? Not while anything is measured. */
static void begin_run(struct lane *l)
{
	const uint32_t queues = devices[0].queues;
	uint32_t astray;

	pthread_once(&once, choose_flows);
	astray = queues > 1 ? (uint32_t)((of_each * ctl->share + 500) / 1000) : 0;
	l->count = 0;
	for (uint32_t owner = 0; owner < queues; owner++) {
		for (uint32_t i = 0; i < of_each; i++) {
			struct flow flow = chosen[l->reply][owner][i];
			uint32_t queue = owner;

			if (i < astray) {
				queue = (owner + 1 + i % (queues - 1)) % queues;
				flow.number |= ASTRAY;
			}
			if (queue == l->queue)
				l->flows[l->count++] = flow;
		}
	}
	if (l->count == 0)
		die("a queue without flows: more of them are wanted");
	l->flags = devices[l->reply].rss && devices[l->reply].hash_wanted ? RTE_MBUF_F_RX_RSS_HASH : 0;
	l->shared->passes = 0;
	l->running = true;
	new_pass(l);
}

static void fill(struct lane *l, struct rte_mbuf **pkts, uint16_t n)
{
	uint64_t astray = 0;

	while (n > 0) {
		const uint16_t now = (uint16_t)RTE_MIN((uint32_t)n, l->left);
		const uint32_t stride = l->stride, count = l->count;
		const struct flow *all = l->flows;
		uint32_t at = l->at;

		for (uint16_t i = 0; i < now; i++) {
			const struct flow flow = all[at];
			struct rte_mbuf *m = pkts[i];

			write_frame(l->shape, flow.number & ~ASTRAY, rte_pktmbuf_mtod(m, uint8_t *), MIN_LENGTH);
			m->data_len = MIN_LENGTH;
			m->pkt_len = MIN_LENGTH;
			m->hash.rss = flow.hash;
			m->ol_flags |= l->flags;
			astray += flow.number / ASTRAY;
			at += stride;
			at -= at >= count ? count : 0;
		}
		l->at = at;
		l->left -= now;
		if (l->left == 0) {
			l->shared->passes++;
			new_pass(l);
		}
		pkts += now;
		n -= now;
	}
	__atomic_store_n(&l->shared->astray, l->shared->astray + astray, __ATOMIC_RELAXED);
}

static uint16_t on_receive(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, uint16_t max, void *arg)
{
	struct lane *l = arg;
	struct queues_lane *p = l->shared;
	const uint32_t run = __atomic_load_n(&ctl->run, __ATOMIC_ACQUIRE);

	RTE_SET_USED(port);
	RTE_SET_USED(queue);
	RTE_SET_USED(max);
	if (unlikely(p->tid != (uint32_t)rte_gettid()))
		p->tid = (uint32_t)rte_gettid();
	p->calls++;
	if (unlikely(run == NONE || (run == ORIGINALS && l->reply))) {
		/* The device has handed these out and counted them, but the application never sees them. */
		rte_pktmbuf_free_bulk(pkts, n);
		p->taken_back += n;
		l->running = false;
		__atomic_store_n(&p->paused, p->paused + 1, __ATOMIC_RELEASE);
		return 0;
	}
	if (unlikely(!l->running))
		begin_run(l);
	fill(l, pkts, n);
	__atomic_store_n(&p->packets, p->packets + n, __ATOMIC_RELAXED);
	return n;
}

/* They are about to be handed to the driver; net_null takes every one. */
static uint16_t on_send(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, void *arg)
{
	struct queues_lane *p = arg;

	RTE_SET_USED(port);
	RTE_SET_USED(queue);
	RTE_SET_USED(pkts);
	__atomic_store_n(&p->sent, p->sent + n, __ATOMIC_RELAXED);
	return n;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FLOWGEN_CTL"), *count = getenv("FLOWGEN_FLOWS"), *which = getenv("FLOWGEN_SEED");
	int file;

	if (path == NULL)
		return;
	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0 || ftruncate(file, sizeof(*ctl)) != 0)
		die("cannot open the file that FLOWGEN_CTL names");
	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (ctl == MAP_FAILED)
		die("cannot map the file that FLOWGEN_CTL names");
	flows = count == NULL ? 1000 : strtoul(count, NULL, 0);
	seed = which == NULL ? 1 : strtoull(which, NULL, 0);
	if (flows == 0 || flows > MAX_FLOWS / 2)
		die("FLOWGEN_FLOWS: 1 to 8388608 are wanted");
	ctl->flows = flows;
	for (unsigned int side = 0; side < SIDES; side++)
		build_template(&shapes[side], MIN_LENGTH, side == 1, false);
	read_settings();
}

static void attach(uint16_t port, struct device *d)
{
	const unsigned int side = number_of(d);
	struct rte_eth_dev_info info;

	if (side >= SIDES || rte_eth_dev_info_get(port, &info) != 0)
		die("two ports of net_null are wanted");
	if (info.nb_tx_queues < d->queues || devices[0].queues != d->queues)
		die("as many queues are wanted everywhere");
	for (uint16_t q = 0; q < d->queues; q++) {
		struct lane *l = &lanes[q][side];

		l->shared = &ctl->lane[q * SIDES + side];
		l->shared->port_id = port + 1u;
		l->shape = &shapes[side];
		l->queue = q;
		l->reply = side == 1;
		l->random = seed + q * SIDES + side;
		l->flows = room_for(flows);
		if (rte_eth_add_rx_callback(port, q, on_receive, l) == NULL || rte_eth_add_tx_callback(port, q, on_send, l->shared) == NULL)
			die("cannot add the callbacks");
	}
	d->started = true;
	if (side == 1) {
		ctl->tsc_hz = rte_get_tsc_hz();
		__atomic_store_n(&ctl->magic, FLOWGEN_MAGIC, __ATOMIC_RELEASE);
	}
}

/*
 * net_null's queues lie beside each other, and count packets by atomic additions: two workers would wait for each other's cache lines with
 * every burst, which no device makes them do. So each queue is moved to lines of its own. (The port's own statistics stand still.)
 */
static void part(void **queues, uint16_t queue)
{
	void *apart;

	/* More than net_null's structure has, and all of it is inside the array that it lies in. */
	if (posix_memalign(&apart, 128, 128) != 0)
		die("no memory for a queue");
	queues[queue] = memcpy(apart, queues[queue], 64);
}

/* In place of DPDK's: the same, and the callbacks, before any thread can poll. They outlive a stop. */
int rte_eth_dev_start(uint16_t port)
{
	REAL(rte_eth_dev_start);
	struct device *d = ours(port);
	int error;

	if (d != NULL && !d->started)
		attach(port, d);
	for (uint16_t i = 0; d != NULL && !d->reta_set && i < d->reta_size; i++)
		d->reta[i] = i % d->queues;
	error = real(port);
	for (uint16_t q = 0; d != NULL && error == 0 && q < d->queues; q++) {
		part(rte_eth_fp_ops[port].rxq.data, q);
		part(rte_eth_fp_ops[port].txq.data, q);
	}
	return error;
}
