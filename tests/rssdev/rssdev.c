/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card with RSS that does what it is told, or lies. For tests.
 *
 * Preloaded (LD_PRELOAD), it stands between a DPDK application and its net_null ports: it says what the device can do, keeps key
 * and table, and by a receive callback on each queue puts frames of a number of flows, both directions of them, into the mbufs that
 * net_null hands out: those of the queue that key and table say, with the hash that they say, or others. It is never loaded but by a
 * test, and knows nothing of the application.
 *
 * HAECHI_RSSDEV_CTL  file that is shared with the test (struct rssdev_ctl): required, or nothing is touched
 * HAECHI_RSSDEV      see device.h
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf.h>

#include "device.h"

#define MAGIC 0x3156454453535248ull /* "HRSSDEV1" */
#define SCAN 4096 /* flows looked at in a burst at most */

enum lie { HONEST, WRONG_HASH, WRONG_QUEUE, NO_HASH };

/* What a flow is: one bit each in `kinds`; flows take turns. */
enum kind { UDP4, TCP4, ICMP4, UDP6, TCP6, ICMP6, KINDS };

/* All words are naturally aligned and little-endian. The test writes the first four of a port, the device the others. */
struct rssdev_port {
	uint64_t passes;   /* how often all flows are to be sent, in all */
	uint32_t lie;	   /* enum lie */
	uint32_t every;	   /* one packet of so many lies; 0 and 1: all */
	uint64_t done[QUEUES]; /* passes that the queue has finished */
	uint64_t sent[QUEUES]; /* packets that it has delivered */
	uint64_t queues;
	uint64_t pulls; /* how often it is to be pulled out, in all; of the test */
};

struct rssdev_ctl {
	uint64_t magic; /* written last */
	uint32_t flows;
	uint32_t kinds;
	struct rssdev_port port[PORTS];
};

_Static_assert(sizeof(struct rssdev_port) == 288 && sizeof(struct rssdev_ctl) == 16 + PORTS * 288, "the test reads these offsets");

static struct rssdev_ctl *ctl;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("HAECHI_RSSDEV_CTL");
	int file;

	if (path == NULL)
		return;
	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		die("cannot open HAECHI_RSSDEV_CTL");
	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (ctl == MAP_FAILED)
		die("cannot map HAECHI_RSSDEV_CTL");
	read_settings();
	__atomic_store_n(&ctl->magic, MAGIC, __ATOMIC_RELEASE);
}

/* ---- packets ---- */

static enum kind kind_of(uint32_t flow)
{
	uint32_t kinds = ctl->kinds & ((1u << KINDS) - 1);
	uint32_t nth = flow % (uint32_t)__builtin_popcount(kinds);

	while (nth-- > 0)
		kinds &= kinds - 1;
	return (enum kind)__builtin_ctz(kinds);
}

/* Both ends of a flow, as its opener sends; big-endian where they are bytes. */
struct ends {
	uint8_t address[2][16]; /* IPv4: the first four */
	uint16_t port[2];
};

static struct ends ends_of(uint32_t flow, bool ipv6)
{
	struct ends e;

	memset(&e, 0, sizeof(e));
	for (int end = 0; end < 2; end++) {
		uint32_t host = end == 0 ? flow + 1 : 1 + flow % 200;
		uint8_t *a = e.address[end];

		a[0] = ipv6 ? 0xfd : 10;
		a[1] = end == 0 ? 1 : 2;
		a += ipv6 ? 12 : 0;
		a[2] = host >> 8;
		a[3] = host;
	}
	e.port[0] = 1024 + flow * 7 % 60000;
	e.port[1] = 80 + flow % 3;
	return e;
}

/* A packet of a flow in a pass of a device; even ones send what the opener sends, odd ones the answers. */
static uint32_t frame(const struct device *d, uint32_t flow, uint64_t pass, uint8_t *out, uint16_t *length)
{
	const enum kind kind = kind_of(flow);
	const bool ipv6 = kind >= UDP6, answer = number_of(d) % 2 != 0;
	const struct ends e = ends_of(flow, ipv6);
	const uint8_t *source = e.address[answer], *destination = e.address[!answer];
	const uint16_t from = e.port[answer], to = e.port[!answer];
	const uint8_t protocols[KINDS] = { 17, 6, 1, 17, 6, 58 };
	const uint8_t protocol = protocols[kind];
	const size_t l4_length = protocol == 6 ? 20 : 16;
	uint8_t *l4 = out + 14 + (ipv6 ? 40 : 20);
	uint16_t sum;

	memset(out, 0, 128);
	memcpy(out, (uint8_t[]){ 2, 0, 0, 0, 1, !answer, 2, 0, 0, 0, 1, answer, ipv6 ? 0x86 : 8, ipv6 ? 0xdd : 0 }, 14);
	if (protocol == 1 || protocol == 58) {
		l4[0] = protocol == 1 ? (answer ? 0 : 8) : (answer ? 129 : 128);
		l4[4] = flow >> 8;
		l4[5] = flow;
		l4[6] = pass >> 8;
		l4[7] = pass;
	} else {
		l4[0] = from >> 8;
		l4[1] = from;
		l4[2] = to >> 8;
		l4[3] = to;
		if (protocol == 17) {
			l4[5] = l4_length;
		} else {
			uint32_t seq = rte_cpu_to_be_32((answer ? 5000 : 1000) + (pass > 0));
			uint32_t ack = rte_cpu_to_be_32((answer ? 1000 : 5000) + 1);

			memcpy(l4 + 4, &seq, 4);
			if (pass > 0 || answer)
				memcpy(l4 + 8, &ack, 4);
			l4[12] = 5 << 4;
			l4[13] = pass > 0 ? 0x10 : answer ? 0x12 : 0x02;
			l4[14] = 0x40;
		}
	}
	if (ipv6) {
		struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(out + 14);

		out[14] = 0x60;
		ip->payload_len = rte_cpu_to_be_16(l4_length);
		ip->proto = protocol;
		ip->hop_limits = 64;
		memcpy(&ip->src_addr, source, 16);
		memcpy(&ip->dst_addr, destination, 16);
		sum = rte_ipv6_udptcp_cksum(ip, l4);
	} else {
		struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(out + 14);

		out[14] = 0x45;
		ip->total_length = rte_cpu_to_be_16(20 + l4_length);
		ip->time_to_live = 64;
		ip->next_proto_id = protocol;
		memcpy(&ip->src_addr, source, 4);
		memcpy(&ip->dst_addr, destination, 4);
		ip->hdr_checksum = rte_ipv4_cksum(ip);
		sum = protocol == 1 ? (uint16_t)~rte_raw_cksum(l4, l4_length) : rte_ipv4_udptcp_cksum(ip, l4);
	}
	memcpy(l4 + (protocol == 17 ? 6 : protocol == 6 ? 16 : 2), &sum, 2);
	*length = RTE_MAX(60u, (uint32_t)(l4 - out + l4_length));
	return hash_of(d, source, destination, ipv6 ? 16 : 4, from, to, protocol == 6 || (protocol == 17 && d->udp));
}

static uint16_t receive(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count, uint16_t max, void *arg)
{
	struct device *d = arg;
	struct queue *q = &d->queue[queue];
	struct rssdev_port *p = &ctl->port[number_of(d)];
	const uint64_t passes = __atomic_load_n(&p->passes, __ATOMIC_ACQUIRE);
	uint64_t pass = p->done[queue];
	uint16_t made = 0;

	for (uint32_t looks = 0; made < count && pass < passes && looks < SCAN; looks++) {
		struct rte_mbuf *m = packets[made];
		uint16_t length, comes_by;
		uint32_t hash = frame(d, q->at, pass, rte_pktmbuf_mtod(m, uint8_t *), &length);
		/* The same for all queues, so that no packet is sent twice or not at all. */
		bool lies = p->every < 2 || (pass * ctl->flows + q->at) % p->every == p->every - 1;

		comes_by = queue_of(d, hash);
		if (lies && p->lie == WRONG_QUEUE)
			comes_by = (comes_by + 1) % d->queues;
		if (++q->at == ctl->flows) {
			q->at = 0;
			pass++;
		}
		if (comes_by != queue)
			continue;
		m->data_len = length;
		m->pkt_len = length;
		m->hash.rss = lies && p->lie == WRONG_HASH ? hash ^ 0x10000 : hash;
		if (d->rss && d->hash_wanted && !(lies && p->lie == NO_HASH))
			m->ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
		made++;
	}
	for (uint16_t i = made; i < count; i++)
		rte_pktmbuf_free(packets[i]);
	q->count += made;
	__atomic_store_n(&p->sent[queue], q->count, __ATOMIC_RELEASE);
	__atomic_store_n(&p->done[queue], pass, __ATOMIC_RELEASE);
	if (queue == 0 && d->on_removal != NULL && __atomic_load_n(&p->pulls, __ATOMIC_ACQUIRE) > d->pulled) {
		d->pulled++;
		d->on_removal(port, RTE_ETH_EVENT_INTR_RMV, d->of_removal, NULL);
	}
	return made;
}

int rte_eth_dev_start(uint16_t port)
{
	REAL(rte_eth_dev_start);
	struct device *d = ours(port);
	int error = real(port);

	if (error != 0 || d == NULL)
		return error;
	for (uint16_t i = 0; !d->reta_set && i < d->reta_size; i++)
		d->reta[i] = i % d->queues;
	for (uint16_t q = 0; !d->started && q < d->queues; q++) {
		d->callback[q] = rte_eth_add_rx_callback(port, q, receive, d);
		if (d->callback[q] == NULL)
			die("no receive callback");
	}
	d->started = true;
	ctl->port[number_of(d)].queues = d->queues;
	return 0;
}

int rte_eth_dev_close(uint16_t port)
{
	REAL(rte_eth_dev_close);
	struct device *d = ours(port);

	/* They would stay with the number of the port. */
	for (uint16_t q = 0; d != NULL && d->started && q < d->queues; q++)
		rte_eth_remove_rx_callback(port, q, d->callback[q]);
	if (d != NULL) {
		d->started = false;
		d->on_removal = NULL;
		of_port[port] = NULL;
	}
	return real(port);
}
