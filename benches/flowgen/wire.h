/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wire of a given speed in front of each port, for tests that need an offered load (benches/rfc2544): frames arrive by the clock, wait
 * in a ring of so many descriptors, and are lost where they find it full, whether the application polls or not. So a forwarder can
 * be overloaded, as it can by a NIC, and a frame has a time of arrival, from which its latency counts.
 *
 * Without FLOWGEN_WIRE there is none of it: what is not polled does not exist.
 *
 * Environment:
 *   FLOWGEN_WIRE    file to share with the measuring script (struct flowgen_wire)
 *   FLOWGEN_RING    descriptors of a receive ring, 1 to 65536 (default 1024)
 *
 * Every field is a naturally aligned little-endian word with one writer, as in flowgen.h. One thread polls and sends at both
 * ports: a second one would count in the same words.
 */
#ifndef FLOWGEN_WIRE_H
#define FLOWGEN_WIRE_H

#include <stdint.h>

#define WIRE_MAGIC 0x31304552495757ull /* "WWIRE01" */
#define WIRE_MAX_RING 65536u
#define WIRE_TAGS 256u  /* tagged frames of a direction that are inside the application at a time */
#define WIRE_STEPS 32u  /* of the histogram, in each power of two: its values are true to 1/32 */
#define WIRE_OCTAVES 40u /* powers of two ticks */

/* What happened at one port in the current trial. */
struct wire_port {
	/* Frames that come in. */
	uint64_t trial;    /* the trial that the fields below are of, as this port's poller has seen it */
	uint64_t arrived;  /* on the wire: taken, lost, or waiting in the ring */
	uint64_t taken;    /* delivered to the application */
	uint64_t lost;     /* found the ring full */
	uint64_t longest_gap; /* ticks between two polls */
	uint64_t tagged;   /* frames that carry a tag, for their latency */
	uint64_t missing;  /* tagged frames that had not come out when their tag was wanted again */
	uint64_t reserved0;
	/* Frames that go out. */
	uint64_t sent;     /* never set back: the script takes differences */
	uint64_t sent_trial; /* the trial that the fields below are of */
	uint64_t measured; /* tagged frames that came out here */
	uint64_t least;    /* ticks from a frame's arrival until it was handed to the driver */
	uint64_t most;
	uint64_t reserved1[3];
	uint64_t histogram[WIRE_OCTAVES * WIRE_STEPS]; /* of those ticks: see wire_bucket() */
} __attribute__((aligned(64)));

struct flowgen_wire {
	uint64_t magic;    /* written last */
	uint64_t tsc_hz;
	/* Written by the script, `trial` last; a new number there starts a trial at each port's next poll. */
	uint64_t trial;    /* 0: none yet, nothing is held back */
	uint64_t frames;   /* how many arrive at each port */
	double rate;       /* so many a second; 0: nothing is held back */
	uint64_t every;    /* one in so many is tagged, 0: none */
	uint64_t ring;     /* descriptors (written by the generator) */
	uint64_t reserved;
	struct wire_port port[2];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct wire_port) == 128 + 8 * WIRE_OCTAVES * WIRE_STEPS, "the script reads these offsets");
_Static_assert(sizeof(struct flowgen_wire) == 64 + 2 * sizeof(struct wire_port), "the script reads these offsets");

/* Frames that wait in the ring, with consecutive numbers: without a loss they are all one run. */
struct wire_run {
	uint64_t first;
	uint64_t count;
};

/* One port's ring, and the clock by which it fills. */
struct wire_lane {
	struct wire_run *runs; /* as many places as the ring has: a run has one frame at least */
	uint64_t oldest;       /* the place of the oldest run; places are counted on and taken modulo the ring's size */
	uint64_t newest;       /* one behind that of the newest */
	uint64_t waiting;      /* frames in all runs */
	uint64_t start;        /* tick at which the trial began at this port */
	uint64_t polled;       /* tick of the last poll */
	double frames_a_tick;
	double ticks_a_frame;
	uint64_t tag;          /* the next one */
	uint64_t stamps[WIRE_TAGS]; /* ticks of arrival of frames by tag; 0: free */
};

static struct flowgen_wire *wire;
static struct wire_lane wire_lanes[2];
static uint64_t wire_hz;

static void wire_configure(const char *path, uint64_t ring, uint64_t tsc_hz)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned int i;

	if (fd < 0 || ftruncate(fd, sizeof(*wire)) != 0) {
		fprintf(stderr, "flowgen: cannot open the file that FLOWGEN_WIRE names\n");
		exit(1);
	}
	wire = mmap(NULL, sizeof(*wire), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	for (i = 0; i < 2; i++)
		wire_lanes[i].runs = calloc(ring, sizeof(struct wire_run));
	if (wire == MAP_FAILED || wire_lanes[0].runs == NULL || wire_lanes[1].runs == NULL) {
		fprintf(stderr, "flowgen: no memory for the wire\n");
		exit(1);
	}
	wire_hz = tsc_hz;
	wire->tsc_hz = tsc_hz;
	wire->ring = ring;
	__atomic_store_n(&wire->magic, WIRE_MAGIC, __ATOMIC_RELEASE);
}

static void wire_start(struct wire_lane *lane, struct wire_port *port, uint64_t trial, uint64_t now)
{
	lane->oldest = lane->newest = lane->waiting = 0;
	lane->start = lane->polled = now;
	lane->frames_a_tick = wire->rate / (double)wire_hz;
	lane->ticks_a_frame = wire->rate > 0 ? (double)wire_hz / wire->rate : 0;
	memset(lane->stamps, 0, sizeof(lane->stamps));
	port->arrived = port->taken = port->lost = port->longest_gap = port->tagged = port->missing = 0;
	__atomic_store_n(&port->trial, trial, __ATOMIC_RELEASE);
}

/* Frames that came since the last poll go into the ring, as many of the first ones as there is room for. */
static void wire_arrive(struct wire_lane *lane, struct wire_port *port, uint64_t now)
{
	const uint64_t due = (uint64_t)((double)(now - lane->start) * lane->frames_a_tick);
	const uint64_t first = port->arrived, arrived = RTE_MIN(due, wire->frames);
	uint64_t came, kept;

	if (arrived <= first)
		return;
	came = arrived - first;
	kept = RTE_MIN(came, wire->ring - lane->waiting);
	if (kept > 0) {
		struct wire_run *last = &lane->runs[(lane->newest - 1) % wire->ring];

		if (lane->newest != lane->oldest && last->first + last->count == first)
			last->count += kept;
		else
			lane->runs[lane->newest++ % wire->ring] = (struct wire_run){ first, kept };
		lane->waiting += kept;
	}
	__atomic_store_n(&port->lost, port->lost + came - kept, __ATOMIC_RELAXED);
	__atomic_store_n(&port->arrived, arrived, __ATOMIC_RELAXED);
}

/* A poll of the port: how many of at most `n` frames the ring holds. */
static uint16_t wire_poll(unsigned int side, uint16_t n)
{
	struct wire_lane *lane = &wire_lanes[side];
	struct wire_port *port = &wire->port[side];
	const uint64_t trial = __atomic_load_n(&wire->trial, __ATOMIC_ACQUIRE), now = rte_rdtsc();

	if (unlikely(trial != port->trial))
		wire_start(lane, port, trial, now);
	if (lane->frames_a_tick == 0)
		return n;
	/* Before the first frame and after the last one nobody waits for a poll. */
	if (port->arrived < wire->frames && now - lane->polled > port->longest_gap)
		port->longest_gap = now - lane->polled;
	lane->polled = now;
	wire_arrive(lane, port, now);
	return (uint16_t)RTE_MIN((uint64_t)n, lane->waiting);
}

/*
 * The tag is the identification of the IPv4 header, which else is 0: an atomic datagram may have any (RFC 6864, section 4.1), and a
 * transparent firewall leaves it alone. It says whose place in which table the time of arrival is in.
 */
static void wire_tag(struct wire_lane *lane, struct wire_port *port, unsigned int side, uint8_t *frame, uint64_t number)
{
	const uint64_t slot = lane->tag++ % WIRE_TAGS;
	const uint16_t tag = (uint16_t)(1 + side * WIRE_TAGS + slot);
	uint32_t sum = (uint16_t)~(frame[24] << 8 | frame[25]);

	port->missing += lane->stamps[slot] != 0;
	port->tagged++;
	lane->stamps[slot] = lane->start + (uint64_t)((double)(number + 1) * lane->ticks_a_frame);
	sum += tag; /* RFC 1624: from 0 to the tag */
	sum = ~((sum & 0xffff) + (sum >> 16));
	frame[18] = tag >> 8;
	frame[19] = tag & 0xff;
	frame[24] = (uint8_t)(sum >> 8);
	frame[25] = (uint8_t)sum;
}

/* The `n` oldest frames of the ring are these. */
static void wire_take(unsigned int side, struct rte_mbuf **pkts, uint16_t n)
{
	struct wire_lane *lane = &wire_lanes[side];
	struct wire_port *port = &wire->port[side];
	const uint64_t every = wire->every;
	uint64_t left = n;

	if (lane->frames_a_tick == 0)
		return;
	lane->waiting -= n;
	while (left > 0) {
		struct wire_run *run = &lane->runs[lane->oldest % wire->ring];
		const uint64_t now = RTE_MIN(left, run->count), end = run->first + now;

		if (every != 0) {
			uint64_t number = (run->first + every - 1) / every * every;

			for (; number < end; number += every)
				wire_tag(lane, port, side, rte_pktmbuf_mtod(pkts[number - run->first], uint8_t *), number);
		}
		run->first = end;
		run->count -= now;
		lane->oldest += run->count == 0;
		pkts += now;
		left -= now;
	}
	__atomic_store_n(&port->taken, port->taken + n, __ATOMIC_RELAXED);
}

/* Values below WIRE_STEPS have a bucket each; above, every power of two has WIRE_STEPS of them. */
static uint32_t wire_bucket(uint64_t ticks)
{
	const uint32_t steps_log = rte_bsf32(WIRE_STEPS);
	uint32_t top, bucket;

	if (ticks < WIRE_STEPS)
		return (uint32_t)ticks;
	top = 63 - (uint32_t)__builtin_clzll(ticks);
	bucket = (top - steps_log + 1) * WIRE_STEPS + (uint32_t)((ticks >> (top - steps_log)) & (WIRE_STEPS - 1));
	return RTE_MIN(bucket, WIRE_OCTAVES * WIRE_STEPS - 1);
}

static void wire_measure(struct wire_port *out, const uint8_t *frame, uint64_t now)
{
	const uint32_t tag = (uint32_t)(frame[18] << 8 | frame[19]) - 1; /* 0, no tag, becomes the largest */
	uint64_t *stamp, ticks;

	if (tag >= 2 * WIRE_TAGS || frame[12] != 0x08 || frame[13] != 0)
		return;
	stamp = &wire_lanes[tag / WIRE_TAGS].stamps[tag % WIRE_TAGS];
	if (*stamp == 0)
		return;
	ticks = now > *stamp ? now - *stamp : 0; /* rounding of the time of arrival */
	*stamp = 0;
	out->histogram[wire_bucket(ticks)]++;
	out->measured++;
	out->least = RTE_MIN(out->least, ticks);
	out->most = RTE_MAX(out->most, ticks);
}

/* Frames are about to be handed to the driver (net_null takes every one). */
static uint16_t wire_on_send(uint16_t port_id, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, void *arg)
{
	struct wire_port *out = arg;

	RTE_SET_USED(port_id);
	RTE_SET_USED(queue);
	__atomic_store_n(&out->sent, out->sent + n, __ATOMIC_RELAXED);
	if (wire->every != 0) {
		const uint64_t now = rte_rdtsc();
		uint16_t i;

		if (unlikely(out->sent_trial != wire->trial)) {
			memset(out->histogram, 0, sizeof(out->histogram));
			out->measured = out->most = 0;
			out->least = UINT64_MAX;
			out->sent_trial = wire->trial;
		}
		for (i = 0; i < n; i++)
			wire_measure(out, rte_pktmbuf_mtod(pkts[i], const uint8_t *), now);
	}
	return n;
}

static bool wire_attach(uint16_t port_id, unsigned int side, uint16_t tx_queues)
{
	uint16_t queue;

	for (queue = 0; queue < tx_queues; queue++)
		if (rte_eth_add_tx_callback(port_id, queue, wire_on_send, &wire->port[side]) == NULL)
			return false;
	return true;
}

#endif
