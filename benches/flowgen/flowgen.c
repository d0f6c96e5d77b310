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
 * all flows once a pass (few flows: several times), each pass in an order of its own, so that no table profits from the order in which it was
 * filled.
 *
 * TCP: a walk over all flows sends the SYNs, one the SYN+ACKs, and from then on every segment carries data behind the last one's,
 * and acknowledges all that the other direction is known to have delivered. No step begins before the one before has been
 * processed.
 *
 * Environment:
 *   FLOWGEN_CTL     file to share with the measuring script (struct flowgen_ctl); required, or nothing is touched
 *   FLOWGEN_MODE    "generate" (default) or "count": count what the device delivers, change nothing (net_pcap)
 *   FLOWGEN_PROTOCOL "udp" (default), "tcp", or "connect": TCP connections that are opened and closed, FLOWGEN_FLOWS at a
 *                   time, each by six segments; the next ones are others
 *   FLOWGEN_FLOWS   number of flows, 1 to 16777216 (default 1)
 *   FLOWGEN_LENGTH  frame length without FCS, 60 to 1514 (default 60: a 64-byte frame)
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
#include <rte_memcpy.h>

#include "flowgen.h"
#include "wire.h"

#define MAX_FLOWS (1u << 24)
#define MIN_LENGTH 60u
#define MAX_LENGTH 1514u
#define MIN_PASS 4096u
#define HEADERS 42u /* Ethernet 14, IPv4 20, UDP 8 */
/* Polls of the first port after its first pass before replies start: the last originals have long been forwarded. */
#define SETTLE_CALLS 64u

static struct flowgen_ctl *ctl;
static bool generate = true;
static uint32_t flows = 1;
static uint32_t length = MIN_LENGTH;
static uint64_t seed = 1;
static bool tcp;
static bool connects; /* TCP: connections without data that are opened and closed, always new ones */

/* One direction: where it is in its pass, and its frame with the fields that differ by flow left zero. */
struct side {
	uint32_t at;        /* the next flow */
	uint32_t stride;    /* to the one after it; no common divisor with `flows`, so a pass meets every flow once */
	uint32_t left;      /* in this pass */
	uint32_t ip_sum;    /* of the frame's constant IPv4 header words, one's complement, unfolded */
	uint32_t udp_sum;   /* of the constant words of pseudo header, UDP or TCP header and payload */
	uint32_t syn_sums[2]; /* TCP: the same two of a segment without data */
	uint32_t walk_left; /* TCP: flows left in this walk */
	uint64_t walks;     /* TCP: finished walks; the first one is the handshake's */
	uint64_t allowed;   /* TCP: the walk that may begin, once `settled` is reached */
	uint64_t settled;
	bool reply;
	uint64_t random;
	struct flowgen_port *shared;
	uint8_t frame[MAX_LENGTH + 64] __attribute__((aligned(64)));
} __attribute__((aligned(64)));

static struct side sides[FLOWGEN_PORTS];
static unsigned int sides_used;

static void die(const char *what)
{
	fprintf(stderr, "flowgen: %s\n", what);
	exit(1);
}

/* SplitMix64: a new value from a counter. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
	while (b != 0) {
		uint32_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

/* A new order of all flows. Not on every burst: once a pass. */
static void new_pass(struct side *s)
{
	/* Few flows keep an order for a while, so that drawing a new one costs nothing that could be measured. */
	s->left = flows >= MIN_PASS ? flows : flows * ((MIN_PASS + flows - 1) / flows);
	s->at = next_random(&s->random) % flows;
	do
		s->stride = 1 + next_random(&s->random) % flows;
	while (gcd(s->stride, flows) != 1);
	s->stride %= flows; /* 0 only for a single flow */
}

static uint32_t sum_words(const uint8_t *bytes, uint32_t len)
{
	uint32_t sum = 0, i;

	for (i = 0; i < len; i++)
		sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

#define TCP_HEADERS 54u
#define TCP_ACK 0x10
#define TCP_PSH 0x08
#define TCP_SYN 0x02
#define TCP_FIN 0x01

/* Ethernet, IPv4 and TCP; what differs by flow and by segment is left zero. */
static void build_tcp_template(struct side *s)
{
	uint8_t *f = s->frame, *ip = f + 14, *head = f + 34;
	uint32_t tcp_len = length - 34, i;

	ip[9] = 6;
	memset(head, 0, 20);
	head[s->reply ? 0 : 2] = 443 >> 8;
	head[s->reply ? 1 : 3] = 443 & 0xff;
	head[12] = 5 << 4;
	head[14] = head[15] = 0xff; /* the largest window without an option */
	for (i = TCP_HEADERS; i < length; i++)
		f[i] = (uint8_t)i;
	s->ip_sum = sum_words(ip, 20);
	s->udp_sum = sum_words(head, tcp_len) + tcp_len + 6;
	/* A segment without data ends with its header; what follows is padding. */
	s->syn_sums[0] = s->ip_sum - (length - 14) + 40;
	s->syn_sums[1] = sum_words(head, 20) + 20 + 6;
	s->walk_left = flows;
}

static void build_template(struct side *s)
{
	static const uint8_t client[6] = { 0x02, 0, 0, 0, 0, 1 }, server[6] = { 0x02, 0, 0, 0, 0, 2 };
	uint8_t *f = s->frame, *ip = f + 14, *udp = f + 34;
	uint32_t ip_len = length - 14, udp_len = length - 34, i;

	memcpy(f, s->reply ? client : server, 6);
	memcpy(f + 6, s->reply ? server : client, 6);
	f[12] = 0x08;
	ip[0] = 0x45;
	ip[2] = ip_len >> 8;
	ip[3] = ip_len & 0xff;
	ip[6] = 0x40; /* do not fragment: identification 0 is then right (RFC 6864) */
	ip[8] = 64;
	ip[9] = 17;
	udp[s->reply ? 0 : 2] = 443 >> 8;
	udp[s->reply ? 1 : 3] = 443 & 0xff;
	udp[4] = udp_len >> 8;
	udp[5] = udp_len & 0xff;
	for (i = HEADERS; i < length; i++)
		f[i] = (uint8_t)i;
	s->ip_sum = sum_words(ip, 20);
	s->udp_sum = sum_words(udp, udp_len) + udp_len + 17;
	if (tcp)
		build_tcp_template(s);
}

/* Flow number to five-tuple: 24 bits of client address, so that no two flows are alike; port and server follow. */
static __rte_always_inline void write_frame(const struct side *s, uint32_t flow, uint8_t *out, uint32_t len)
{
	const uint32_t id = (flow * 0x9e3779b1u + (uint32_t)seed) & 0xffffff;
	const uint32_t client = 0x0a000000u | id;
	const uint32_t server = 0xc6120000u | ((flow * 0x85ebca77u) >> 22); /* 198.18.0.0/22 */
	const uint16_t port = 0x8000u | (uint16_t)((flow * 0xc2b2ae3du) >> 17);
	const uint32_t addresses = (client >> 16) + (client & 0xffff) + (server >> 16) + (server & 0xffff);
	const uint16_t ip_sum = rte_cpu_to_be_16(fold(s->ip_sum + addresses));
	const uint32_t client_be = rte_cpu_to_be_32(client), server_be = rte_cpu_to_be_32(server);
	const uint16_t port_be = rte_cpu_to_be_16(port);
	uint16_t udp_sum = rte_cpu_to_be_16(fold(s->udp_sum + addresses + port));

	if (unlikely(udp_sum == 0))
		udp_sum = 0xffff; /* zero would mean none (RFC 768) */
	if (likely(len == MIN_LENGTH))
		memcpy(out, s->frame, 64); /* a constant length: four vector moves; any data room holds it */
	else
		rte_memcpy(out, s->frame, len);
	memcpy(out + 24, &ip_sum, 2);
	memcpy(out + 26, s->reply ? &server_be : &client_be, 4);
	memcpy(out + 30, s->reply ? &client_be : &server_be, 4);
	memcpy(out + (s->reply ? 36 : 34), &port_be, 2);
	memcpy(out + 40, &udp_sum, 2);
}

static __rte_always_inline uint32_t words_of(uint32_t value)
{
	return (value >> 16) + (value & 0xffff);
}

/* A connection's life in "connect": SYN, SYN+ACK, ACK, FIN, FIN, ACK. Walks of each side that make one: */
static const uint64_t life_walks[2] = { 4, 2 };

static __rte_always_inline void put_segment(const struct side *s, uint32_t flow, uint8_t *out, uint32_t len, uint32_t sent,
					    uint32_t got, uint8_t flags, bool has_data);

/* One segment of a connection's life. */
static void write_life(const struct side *s, uint32_t at, uint8_t *out)
{
	static const uint8_t flags[2][4] = { { TCP_SYN, TCP_ACK, TCP_ACK | TCP_FIN, TCP_ACK },
					     { TCP_SYN | TCP_ACK, TCP_ACK | TCP_FIN } };
	static const uint8_t sent[2][4] = { { 0, 1, 1, 2 }, { 0, 1 } };
	static const uint8_t got[2][4] = { { 0, 1, 1, 2 }, { 1, 2 } };
	const uint64_t life = s->walks / life_walks[s->reply], step = s->walks % life_walks[s->reply];

	put_segment(s, (uint32_t)(life * flows) + at, out, length, sent[s->reply][step], got[s->reply][step],
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

/* One segment of a flow: the SYN or SYN+ACK in the first walk, then data. */
static void write_segment(const struct side *s, uint32_t flow, uint8_t *out)
{
	const struct side *other = &sides[s->reply ? 0 : 1];
	const uint32_t data = length - TCP_HEADERS;
	const bool syn = s->walks == 0;
	const uint8_t flags = syn ? (s->reply ? TCP_SYN | TCP_ACK : TCP_SYN) : TCP_ACK | TCP_PSH;
	const uint32_t sent = syn ? 0 : 1 + (uint32_t)(s->walks - 1) * data;
	const uint32_t got = other->walks == 0 ? 0 : 1 + (uint32_t)(other->walks - 1) * data;

	put_segment(s, flow, out, length, sent, got, flags, !syn);
}

/* A segment with these numbers, from the ISNs on. */
static __rte_always_inline void put_segment(const struct side *s, uint32_t flow, uint8_t *out, uint32_t len, uint32_t sent,
					    uint32_t got, uint8_t flags, bool has_data)
{
	const uint32_t id = (flow * 0x9e3779b1u + (uint32_t)seed) & 0xffffff;
	const uint32_t client = 0x0a000000u | id;
	const uint32_t server = 0xc6120000u | ((flow * 0x85ebca77u) >> 22); /* 198.18.0.0/22 */
	const uint16_t port = 0x8000u | (uint16_t)((flow * 0xc2b2ae3du) >> 17);
	const uint32_t addresses = words_of(client) + words_of(server);
	const uint32_t isns[2] = { flow * 0x27d4eb2fu + 1, flow * 0x165667b1u + 7 };
	const bool syn = !has_data;
	const uint32_t seq = isns[s->reply] + sent;
	const uint32_t ack = flags & TCP_ACK ? isns[!s->reply] + got : 0;
	const uint16_t ip_len = rte_cpu_to_be_16(syn ? 40 : (uint16_t)(len - 14));
	const uint16_t ip_sum = rte_cpu_to_be_16(fold((syn ? s->syn_sums[0] : s->ip_sum) + addresses));
	const uint16_t tcp_sum = rte_cpu_to_be_16(
		fold((syn ? s->syn_sums[1] : s->udp_sum) + addresses + port + words_of(seq) + words_of(ack) + flags));
	const uint32_t client_be = rte_cpu_to_be_32(client), server_be = rte_cpu_to_be_32(server);
	const uint32_t seq_be = rte_cpu_to_be_32(seq), ack_be = rte_cpu_to_be_32(ack);
	const uint16_t port_be = rte_cpu_to_be_16(port);

	if (likely(len == MIN_LENGTH))
		memcpy(out, s->frame, 64); /* as in write_frame */
	else
		rte_memcpy(out, s->frame, len);
	memcpy(out + 16, &ip_len, 2);
	memcpy(out + 24, &ip_sum, 2);
	memcpy(out + 26, s->reply ? &server_be : &client_be, 4);
	memcpy(out + 30, s->reply ? &client_be : &server_be, 4);
	memcpy(out + (s->reply ? 36 : 34), &port_be, 2);
	memcpy(out + 38, &seq_be, 4);
	memcpy(out + 42, &ack_be, 4);
	out[47] = flags;
	memcpy(out + 50, &tcp_sum, 2);
}

/* May the walk begin that is next? The client waits for the SYN+ACKs, the server for the SYNs, and then for the ACKs. */
static bool may_walk(struct side *s)
{
	const uint64_t handshake = s->reply ? (s->walks < 2 ? s->walks + 1 : 0) : (s->walks == 1 ? 1 : 0);
	const uint64_t needed = connects ? life_needs(s) : handshake;
	const struct side *other = &sides[s->reply ? 0 : 1];

	if (other->walks < needed)
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
static __rte_always_inline void fill_data(struct side *s, struct rte_mbuf **pkts, uint16_t n, uint32_t len)
{
	const uint32_t data = len - TCP_HEADERS, stride = s->stride, count = flows;
	const uint64_t acknowledged = sides[s->reply ? 0 : 1].walks;
	const uint32_t sent = 1 + (uint32_t)(s->walks - 1) * data, got = 1 + (uint32_t)(acknowledged - 1) * data;
	uint32_t at = s->at;
	uint16_t i;

	for (i = 0; i < n; i++) {
		struct rte_mbuf *m = pkts[i];

		put_segment(s, at, rte_pktmbuf_mtod(m, uint8_t *), len, sent, got, TCP_ACK | TCP_PSH, true);
		m->data_len = (uint16_t)len;
		m->pkt_len = len;
		at += stride;
		at -= at >= count ? count : 0;
	}
	s->at = at;
}

/* Returns how many were filled: fewer than asked for where a walk ends that another step has to follow. */
static uint16_t fill_tcp(struct side *s, struct rte_mbuf **pkts, uint16_t n)
{
	uint16_t done = 0;

	while (done < n && may_walk(s)) {
		/* Established: nothing is waited for any more, and nothing is asked for each packet. */
		const bool established = !connects && s->walks >= 2 && sides[s->reply ? 0 : 1].walks >= 2;
		const uint32_t most = RTE_MIN(s->left, s->walk_left);
		const uint16_t now = established ? (uint16_t)RTE_MIN((uint32_t)(n - done), most) : 1;

		if (established && likely(length == MIN_LENGTH)) {
			fill_data(s, pkts + done, now, MIN_LENGTH);
		} else if (established) {
			fill_data(s, pkts + done, now, length);
		} else {
			struct rte_mbuf *m = pkts[done];

			if (connects) {
				write_life(s, s->at, rte_pktmbuf_mtod(m, uint8_t *));
				s->shared->opened += !s->reply && s->walks % life_walks[0] == 0;
			} else {
				write_segment(s, s->at, rte_pktmbuf_mtod(m, uint8_t *));
			}
			m->data_len = (uint16_t)length;
			m->pkt_len = length;
			s->at += s->stride;
			s->at -= s->at >= flows ? flows : 0;
		}
		walked(s, now);
		done += now;
	}
	return done;
}

static __rte_always_inline void fill(struct side *s, struct rte_mbuf **pkts, uint16_t n, uint32_t len)
{
	while (n > 0) {
		const uint16_t now = (uint16_t)RTE_MIN((uint32_t)n, s->left);
		const uint32_t stride = s->stride, count = flows;
		uint32_t at = s->at;
		uint16_t i;

		for (i = 0; i < now; i++) {
			struct rte_mbuf *m = pkts[i];

			write_frame(s, at, rte_pktmbuf_mtod(m, uint8_t *), len);
			m->data_len = (uint16_t)len;
			m->pkt_len = len;
			at += stride;
			at -= at >= count ? count : 0;
		}
		s->at = at;
		s->left -= now;
		if (s->left == 0) {
			s->shared->passes++;
			new_pass(s);
		}
		pkts += now;
		n -= now;
	}
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
		return take_back(p, pkts, n);
	}
	if (wire != NULL) {
		const uint16_t waiting = wire_poll(s->reply, n);

		take_back(p, pkts + waiting, n - waiting);
		n = waiting;
	}
	if (generate && tcp) {
		const uint16_t filled = fill_tcp(s, pkts, n);

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
		if (likely(length == MIN_LENGTH))
			fill(s, pkts, n, MIN_LENGTH);
		else
			fill(s, pkts, n, length);
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
	const char *mode = getenv("FLOWGEN_MODE");
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
	if (getenv("FLOWGEN_PROTOCOL") != NULL && strcmp(getenv("FLOWGEN_PROTOCOL"), "udp") != 0) {
		connects = strcmp(getenv("FLOWGEN_PROTOCOL"), "connect") == 0;
		if (!connects && strcmp(getenv("FLOWGEN_PROTOCOL"), "tcp") != 0)
			die("FLOWGEN_PROTOCOL: \"udp\", \"tcp\" or \"connect\" is wanted");
		tcp = true;
	}
	flows = (uint32_t)number("FLOWGEN_FLOWS", 1, 1, MAX_FLOWS);
	length = (uint32_t)number("FLOWGEN_LENGTH", MIN_LENGTH, MIN_LENGTH, MAX_LENGTH);
	if (tcp && length > 600)
		die("FLOWGEN_LENGTH: at most 600 with TCP, or a burst does not fit its windows");
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
	build_template(s);
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
