/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A traffic generator inside the measured process, the same for every DPDK application.
 *
 * Preloaded (LD_PRELOAD), it wraps rte_eth_dev_start() and adds a receive callback to the first two ports. The
 * callback runs in the application's own rte_eth_rx_burst() and writes a complete Ethernet/IPv4/UDP frame, with right
 * checksums, into every mbuf that net_null hands out. So the generator costs no core, knows no overload (only what is
 * polled exists), and its cost, a few nanoseconds a packet, is in every contestant alike. Nothing is kept per flow:
 * headers are computed from the flow's number, so that the generator leaves the caches to the contestant.
 *
 * The port that is started first sends the original direction, the other one the replies of the same flows. No
 * reply is sent before every flow's first original packet has been delivered and processed. Both directions walk
 * all flows once a pass (few flows: several times), each pass in an order of its own, so that no table profits from the
 * order in which it was filled.
 *
 * TCP: a walk over all flows sends the SYNs, one the SYN+ACKs, and from then on every segment carries data behind the last one's,
 * and acknowledges all that the other direction is known to have delivered. No step begins before the one before has been
 * processed.
 *
 * New flows: UDP packets of which each belongs to a flow of its own, on the first port alone, up to a number and at a rate that the
 * script may change (struct flowgen_ctl). What is due and was not asked for stays due.
 *
 * Frames of mixed lengths ("imix") are the simple IMIX: of twelve frames seven of 64 bytes, four of 570 and one of 1518, with FCS.
 *
 * Environment:
 *   FLOWGEN_CTL     file to share with the measuring script (struct flowgen_ctl); required, or nothing is touched
 *   FLOWGEN_MODE    "generate" (default) or "count": count what the device delivers, change nothing (net_pcap)
 *   FLOWGEN_PROTOCOL "udp" (default), "tcp", "connect": TCP connections that are opened and closed, FLOWGEN_FLOWS at a
 *                   time, each by six segments; the next ones are others; or "new": UDP, always new flows
 *   FLOWGEN_FLOWS   number of flows, 1 to 16777216 (default 1)
 *   FLOWGEN_LENGTH  frame length without FCS, 60 to 1514 (default 60: a 64-byte frame), or "imix"
 *   FLOWGEN_SEED    which addresses, and in which orders (default 1)
 *   FLOWGEN_WIRE, FLOWGEN_RING: frames arrive at a given rate, see wire.h
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "flowgen.h"
#include "frames.h"
#include "walk.h"
#include "wire.h"

#define MAX_FLOWS (1u << 24)
/* Polls of the first port after its first pass before replies start: the last originals have long been forwarded. */
#define SETTLE_CALLS 64u

static struct flowgen_ctl *ctl;
static bool generate = true;
static uint32_t flows = 1;
static uint32_t length = MIN_LENGTH; /* of the shortest frame where there are several */
static bool tcp;
static bool connects; /* TCP: connections without data that are opened and closed, always new ones */
static bool opens;    /* UDP: every packet opens a flow */
static bool mixed;    /* frames of several lengths */
/* TCP: walks that a side may be ahead of the other one, whose acknowledgements may be as far behind: twice this fits a window. */
static uint64_t ahead;
#define AHEAD_BYTES 24576u

/* One direction: where it is in its pass, and its frames. */
struct side {
	uint32_t at;        /* the next flow */
	uint32_t stride;    /* to the one after it; no common divisor with `flows`, so a pass meets every flow once */
	uint32_t left;      /* in this pass */
	uint32_t mix_at;    /* UDP: the next frame's place in the mix */
	uint32_t walk_left; /* TCP: flows left in this walk */
	uint64_t walks;     /* TCP: finished walks; the first one is the handshake's */
	uint64_t allowed;   /* TCP: the walk that may begin, once `settled` is reached */
	uint64_t settled;
	bool reply;
	uint64_t random;
	uint64_t began;     /* TSC of when `run` became 1 */
	uint64_t opened_before; /* flows, until then */
	bool running;
	struct flowgen_port *shared;
	struct shape shapes[SHAPES];
} __attribute__((aligned(64)));

static struct side sides[FLOWGEN_PORTS];
static unsigned int sides_used;

static void die(const char *what)
{
	fprintf(stderr, "flowgen: %s\n", what);
	exit(1);
}

/* A new order of all flows. Not on every burst: once a pass. */
static void new_pass(struct side *s)
{
	s->left = pass_length(flows);
	s->at = next_random(&s->random) % flows;
	s->stride = new_stride(&s->random, flows);
}

static void build_templates(struct side *s)
{
	uint32_t i;

	for (i = SHAPES; mixed && i-- > 1;)
		build_template(&s->shapes[i], lengths[i], s->reply, tcp);
	build_template(&s->shapes[0], length, s->reply, tcp);
	s->walk_left = flows;
}

/* A connection's life in "connect": SYN, SYN+ACK, ACK, FIN, FIN, ACK. Walks of each side that make one: */
static const uint64_t life_walks[2] = { 4, 2 };

/* One segment of a connection's life. */
static void write_life(const struct side *s, uint32_t at, uint8_t *out)
{
	static const uint8_t flags[2][4] = { { TCP_SYN, TCP_ACK, TCP_ACK | TCP_FIN, TCP_ACK },
					     { TCP_SYN | TCP_ACK, TCP_ACK | TCP_FIN } };
	static const uint8_t sent[2][4] = { { 0, 1, 1, 2 }, { 0, 1 } };
	static const uint8_t got[2][4] = { { 0, 1, 1, 2 }, { 1, 2 } };
	const uint64_t life = s->walks / life_walks[s->reply], step = s->walks % life_walks[s->reply];

	put_segment(&s->shapes[0], (uint32_t)(life * flows) + at, out, length, sent[s->reply][step], got[s->reply][step],
		    flags[s->reply][step], false);
}

/* The other side's walks that a walk of "connect" waits for; 0: none. */
static uint64_t life_needs(const struct side *s)
{
	const uint64_t life = s->walks / life_walks[s->reply], step = s->walks % life_walks[s->reply];

	if (s->reply)
		return 4 * life + (step == 0 ? 1 : 3);
	return step & 1 ? 2 * life + (step == 1 ? 1 : 2) : 0;
}

/* Bytes of data that a connection has sent, or received, in so many walks after the handshake. */
static __rte_always_inline uint32_t data_of(uint64_t walks, uint32_t flow, uint32_t len)
{
	if (!mixed)
		return (uint32_t)walks * (len - TCP_HEADERS);
	return (uint32_t)(walks / MIX) * mix_data + mix_part[flow % MIX][walks % MIX];
}

/* The length of a connection's frame in a walk after the handshake; connections differ in where in the mix they begin. */
static __rte_always_inline const struct shape *shape_of(const struct side *s, uint64_t walks, uint32_t flow)
{
	return mixed ? &s->shapes[mix[(flow + walks) % MIX]] : &s->shapes[0];
}

/* One segment of a flow, and its length: the SYN or SYN+ACK in the first walk, then data. */
static uint32_t write_segment(const struct side *s, uint32_t flow, uint8_t *out)
{
	const struct side *other = &sides[s->reply ? 0 : 1];
	const bool syn = s->walks == 0;
	const struct shape *shape = syn ? &s->shapes[0] : shape_of(s, s->walks - 1, flow);
	const uint8_t flags = syn ? (s->reply ? TCP_SYN | TCP_ACK : TCP_SYN) : TCP_ACK | TCP_PSH;
	const uint32_t sent = syn ? 0 : 1 + data_of(s->walks - 1, flow, length);
	const uint32_t got = other->walks == 0 ? 0 : 1 + data_of(other->walks - 1, flow, length);

	put_segment(shape, flow, out, shape->length, sent, got, flags, !syn);
	return shape->length;
}

/* May the walk begin that is next? The client waits for the SYN+ACKs, the server for the SYNs, and then for the ACKs. */
static bool may_walk(struct side *s)
{
	const uint64_t handshake = s->reply ? (s->walks < 2 ? s->walks + 1 : 0) : (s->walks == 1 ? 1 : 0);
	const uint64_t needed = connects ? life_needs(s) : handshake;
	const struct side *other = &sides[s->reply ? 0 : 1];

	if (other->walks < needed)
		return false;
	if (!connects && s->walks > other->walks + ahead)
		return false;
	if (s->allowed != s->walks + 1) {
		/* Polls of this port since then: what the other one delivered last has long been processed. */
		if (needed != 0 && ++s->settled < SETTLE_CALLS)
			return false;
		s->settled = 0;
		s->allowed = s->walks + 1;
	}
	return true;
}

/* So many packets of a walk, and of a pass, are written. */
static __rte_always_inline void walked(struct side *s, uint16_t n)
{
	s->walk_left -= n;
	if (s->walk_left == 0) {
		s->walk_left = flows;
		s->walks++;
	}
	s->left -= n;
	if (s->left == 0) {
		s->shared->passes++;
		new_pass(s);
	}
}

/* Data of established connections: so many that walk, pass and what the other side has delivered stay the same. */
static __rte_always_inline void fill_data(struct side *s, struct rte_mbuf **pkts, uint16_t n, uint32_t len, bool one_length)
{
	const uint32_t stride = s->stride, count = flows;
	const uint64_t walks = s->walks - 1, acknowledged = sides[s->reply ? 0 : 1].walks - 1;
	const uint32_t sent = 1 + (uint32_t)walks * (len - TCP_HEADERS), got = 1 + (uint32_t)acknowledged * (len - TCP_HEADERS);
	uint32_t at = s->at;
	uint16_t i;

	for (i = 0; i < n; i++) {
		struct rte_mbuf *m = pkts[i];
		uint8_t *out = rte_pktmbuf_mtod(m, uint8_t *);

		if (one_length) {
			put_segment(&s->shapes[0], at, out, len, sent, got, TCP_ACK | TCP_PSH, true);
		} else {
			const struct shape *shape = shape_of(s, walks, at);

			len = shape->length;
			put_segment(shape, at, out, len, 1 + data_of(walks, at, len), 1 + data_of(acknowledged, at, len),
				    TCP_ACK | TCP_PSH, true);
		}
		m->data_len = (uint16_t)len;
		m->pkt_len = len;
		at += stride;
		at -= at >= count ? count : 0;
	}
	s->at = at;
}

/* How many flows are to be opened now, of so many that could be. */
static uint16_t due_now(const struct side *s, uint16_t n)
{
	const uint64_t rate = __atomic_load_n(&ctl->rate, __ATOMIC_RELAXED), opened = s->shared->opened;
	const uint64_t limit = __atomic_load_n(&ctl->limit, __ATOMIC_RELAXED);
	uint64_t due = limit == 0 ? n : limit > opened ? limit - opened : 0;

	if (rate != 0) {
		const double seconds = (double)(rte_rdtsc() - s->began) / (double)ctl->tsc_hz;
		const uint64_t should = s->opened_before + (uint64_t)(seconds * (double)rate);
		const uint64_t behind = should > opened ? should - opened : 0;

		due = RTE_MIN(due, behind);
		if (due != 0 && behind > s->shared->behind)
			s->shared->behind = behind;
	}
	return (uint16_t)RTE_MIN((uint64_t)n, due);
}

/* Returns how many were filled: fewer than asked for where a walk ends that another step has to follow. */
static uint16_t fill_tcp(struct side *s, struct rte_mbuf **pkts, uint16_t n)
{
	uint16_t done = 0, may_open = connects && !s->reply ? due_now(s, n) : 0;

	while (done < n && may_walk(s)) {
		/* Established: nothing is waited for any more, and nothing is asked for each packet. */
		const bool established = !connects && s->walks >= 2 && sides[s->reply ? 0 : 1].walks >= 2;
		const uint32_t most = RTE_MIN(s->left, s->walk_left);
		const uint16_t now = established ? (uint16_t)RTE_MIN((uint32_t)(n - done), most) : 1;

		if (established && mixed) {
			fill_data(s, pkts + done, now, length, false);
		} else if (established && likely(length == MIN_LENGTH)) {
			fill_data(s, pkts + done, now, MIN_LENGTH, true);
		} else if (established) {
			fill_data(s, pkts + done, now, length, true);
		} else {
			struct rte_mbuf *m = pkts[done];
			uint32_t len = length;

			if (connects) {
				if (!s->reply && s->walks % life_walks[0] == 0) {
					if (may_open == 0)
						break;
					may_open--;
					s->shared->opened++;
				}
				write_life(s, s->at, rte_pktmbuf_mtod(m, uint8_t *));
			} else {
				len = write_segment(s, s->at, rte_pktmbuf_mtod(m, uint8_t *));
			}
			m->data_len = (uint16_t)len;
			m->pkt_len = len;
			s->at += s->stride;
			s->at -= s->at >= flows ? flows : 0;
		}
		walked(s, now);
		done += now;
	}
	return done;
}

static __rte_always_inline void fill(struct side *s, struct rte_mbuf **pkts, uint16_t n, uint32_t len, bool one_length)
{
	while (n > 0) {
		const uint16_t now = (uint16_t)RTE_MIN((uint32_t)n, s->left);
		const uint32_t stride = s->stride, count = flows;
		uint32_t at = s->at, mix_at = s->mix_at;
		uint16_t i;

		for (i = 0; i < now; i++) {
			const struct shape *shape = &s->shapes[one_length ? 0 : mix[mix_at]];
			struct rte_mbuf *m = pkts[i];

			if (!one_length) {
				len = shape->length;
				mix_at = mix_at == MIX - 1 ? 0 : mix_at + 1;
			}
			write_frame(shape, at, rte_pktmbuf_mtod(m, uint8_t *), len);
			m->data_len = (uint16_t)len;
			m->pkt_len = len;
			at += stride;
			at -= at >= count ? count : 0;
		}
		s->at = at;
		s->mix_at = mix_at;
		s->left -= now;
		if (s->left == 0) {
			s->shared->passes++;
			new_pass(s);
		}
		pkts += now;
		n -= now;
	}
}

/* Flows that were never seen before, one packet each: 2^32 of them before one comes again. */
static uint16_t fill_new(struct side *s, struct rte_mbuf **pkts, uint16_t n)
{
	const uint16_t now = s->reply ? 0 : due_now(s, n);
	uint16_t i;

	for (i = 0; i < now; i++) {
		struct rte_mbuf *m = pkts[i];

		write_frame(&s->shapes[0], (uint32_t)s->shared->opened + i, rte_pktmbuf_mtod(m, uint8_t *), length);
		m->data_len = (uint16_t)length;
		m->pkt_len = length;
	}
	s->shared->opened += now;
	return now;
}

/* The device has handed these out and counted them, but the application never sees them. */
static uint16_t take_back(struct flowgen_port *p, struct rte_mbuf **pkts, uint16_t n)
{
	rte_pktmbuf_free_bulk(pkts, n);
	p->taken_back += n;
	return 0;
}

static uint16_t on_receive(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, uint16_t max, void *arg)
{
	struct side *s = arg;
	struct flowgen_port *p = s->shared;

	RTE_SET_USED(port);
	RTE_SET_USED(queue);
	RTE_SET_USED(max);
	if (unlikely(p->tid != (uint32_t)rte_gettid()))
		p->tid = (uint32_t)rte_gettid(); /* testpmd's main thread drains the queues before its worker starts */
	p->calls++;
	if (unlikely(__atomic_load_n(&ctl->run, __ATOMIC_RELAXED) == 0)) {
		p->paused++;
		s->running = false;
		return take_back(p, pkts, n);
	}
	if (unlikely(!s->running)) {
		s->running = true;
		s->began = rte_rdtsc();
		s->opened_before = p->opened;
		p->behind = 0;
	}
	if (wire != NULL) {
		const uint16_t waiting = wire_poll(s->reply, n);

		take_back(p, pkts + waiting, n - waiting);
		n = waiting;
	}
	if (generate && (tcp || opens)) {
		const uint16_t filled = tcp ? fill_tcp(s, pkts, n) : fill_new(s, pkts, n);

		take_back(p, pkts + filled, n - filled);
		n = filled;
	} else if (generate) {
		if (s->reply) {
			static uint64_t settled;

			if (unlikely(settled < SETTLE_CALLS)) {
				settled += sides[0].shared->passes > 0;
				return take_back(p, pkts, n);
			}
		}
		if (mixed)
			fill(s, pkts, n, length, false);
		else if (likely(length == MIN_LENGTH))
			fill(s, pkts, n, MIN_LENGTH, true);
		else
			fill(s, pkts, n, length, true);
	}
	if (wire != NULL)
		wire_take(s->reply, pkts, n);
	__atomic_store_n(&p->packets, p->packets + n, __ATOMIC_RELAXED);
	return n;
}

static uint64_t number(const char *name, uint64_t fallback, uint64_t low, uint64_t high)
{
	const char *text = getenv(name);
	char *end;
	unsigned long long value;

	if (text == NULL || *text == '\0')
		return fallback;
	value = strtoull(text, &end, 0);
	if (*end != '\0' || value < low || value > high) {
		fprintf(stderr, "flowgen: %s=%s: a number from %llu to %llu is wanted\n", name, text,
			(unsigned long long)low, (unsigned long long)high);
		exit(1);
	}
	return value;
}

static void configure(const char *path)
{
	const char *mode = getenv("FLOWGEN_MODE"), *protocol = getenv("FLOWGEN_PROTOCOL");
	const char *length_text = getenv("FLOWGEN_LENGTH");
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*ctl)) != 0)
		die("cannot open the file that FLOWGEN_CTL names");
	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (ctl == MAP_FAILED)
		die("cannot map the file that FLOWGEN_CTL names");
	if (mode != NULL && strcmp(mode, "generate") != 0 && strcmp(mode, "count") != 0)
		die("FLOWGEN_MODE: \"generate\" or \"count\" is wanted");
	generate = mode == NULL || strcmp(mode, "generate") == 0;
	if (protocol != NULL && strcmp(protocol, "udp") != 0) {
		connects = strcmp(protocol, "connect") == 0;
		opens = strcmp(protocol, "new") == 0;
		tcp = connects || strcmp(protocol, "tcp") == 0;
		if (!tcp && !opens)
			die("FLOWGEN_PROTOCOL: \"udp\", \"tcp\", \"connect\" or \"new\" is wanted");
	}
	flows = (uint32_t)number("FLOWGEN_FLOWS", 1, 1, MAX_FLOWS);
	mixed = length_text != NULL && strcmp(length_text, "imix") == 0;
	if (mixed && (connects || opens))
		die("FLOWGEN_LENGTH: no \"imix\" of packets that open flows, which have no data");
	if (mixed)
		sum_mix();
	else
		length = (uint32_t)number("FLOWGEN_LENGTH", MIN_LENGTH, MIN_LENGTH, MAX_LENGTH);
	ahead = mixed ? AHEAD_BYTES * MIX / mix_data : AHEAD_BYTES / (length - TCP_HEADERS);
	seed = number("FLOWGEN_SEED", 1, 0, UINT64_MAX);
	ctl->flows = flows;
	ctl->tsc_hz = rte_get_tsc_hz();
	if (generate && getenv("FLOWGEN_WIRE") != NULL)
		wire_configure(getenv("FLOWGEN_WIRE"), number("FLOWGEN_RING", 1024, 1, WIRE_MAX_RING), ctl->tsc_hz);
}

static void attach(uint16_t port)
{
	const char *path = getenv("FLOWGEN_CTL");
	struct rte_eth_dev_info info;
	struct side *s;

	if (path == NULL || rte_eth_dev_info_get(port, &info) != 0)
		return;
	if (ctl == NULL)
		configure(path);
	if (strcmp(info.driver_name, generate ? "net_null" : "net_pcap") != 0 || sides_used == FLOWGEN_PORTS)
		return;
	/* Every receive queue but the first would deliver frames without headers. */
	if (info.nb_rx_queues != 1)
		die("one receive queue a port is supported");
	s = &sides[sides_used];
	s->reply = sides_used == 1;
	s->random = seed + sides_used;
	s->shared = &ctl->port[sides_used];
	new_pass(s);
	build_templates(s);
	if (rte_eth_add_rx_callback(port, 0, on_receive, s) == NULL)
		die("cannot add the receive callback");
	if (wire != NULL && !wire_attach(port, s->reply, info.nb_tx_queues))
		die("cannot add the transmit callback");
	s->shared->port_id = port + 1u;
	sides_used++;
	if (sides_used == FLOWGEN_PORTS)
		__atomic_store_n(&ctl->magic, FLOWGEN_MAGIC, __ATOMIC_RELEASE);
}

/* In place of DPDK's: the same, and then the callback. Callbacks outlive a stop, so a second start adds none. */
int rte_eth_dev_start(uint16_t port)
{
	static int (*real)(uint16_t);
	static bool attached[RTE_MAX_ETHPORTS];
	int result;

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "rte_eth_dev_start");
	if (real == NULL)
		die("no rte_eth_dev_start behind this one");
	/* Before the start, while no thread can poll: no frame without headers is ever seen. */
	if (port < RTE_MAX_ETHPORTS && !attached[port]) {
		attached[port] = true;
		attach(port);
	}
	result = real(port);
	return result;
}
