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
 * HAECHI_RSSDEV      what net_null0, net_null1 and so on are, separated by ';', the last one for all others:
 *   "reta=128,key=40,queues=16,hash=1": entries of the table (0: none), bytes of the key (0: does not say, takes 40), queues at
 *   most, whether it hands the hash over. "symmetric=1": takes flow rules for symmetric Toeplitz (XOR); "udp=0": hashes UDP by its
 *   addresses, and says so; "refuse=key", "refuse=table": does not take it; "forget=key", "forget=table": takes it and keeps another;
 *   "removable=1": says when it is pulled out (it can be opened again at once).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_thash.h>
#include <rte_version.h>

#define MAGIC 0x3156454453535248ull /* "HRSSDEV1" */
#define PORTS 4
#define QUEUES 16
#define ENTRIES 4096
#define KEY_MOST 255
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

struct device {
	uint16_t reta_size;
	uint8_t key_size;
	uint16_t max_queues;
	bool hands_hash, symmetric, udp, refuse_key, refuse_table, forget_key, forget_table, removable;
	/* What it was told. */
	uint16_t queues;
	bool rss, xors, hash_wanted;
	uint64_t types;
	uint8_t key[KEY_MOST + 5];
	uint16_t reta[ENTRIES];
	bool reta_set, started;
	/* Who is to be told when it is pulled out, and how often that was. */
	rte_eth_dev_cb_fn on_removal;
	void *of_removal;
	uint64_t pulled;
	const struct rte_eth_rxtx_callback *callback[QUEUES];
	struct queue {
		uint32_t at;
		uint64_t count;
	} queue[QUEUES];
};

static struct rssdev_ctl *ctl;
static struct device devices[PORTS];

static void die(const char *what)
{
	fprintf(stderr, "rssdev: %s\n", what);
	exit(1);
}

/* The function that ours stands in front of. */
#define REAL(name) \
	static __typeof__(&name) real; \
	if (real == NULL && (*(void **)&real = dlsym(RTLD_NEXT, #name)) == NULL) \
		die("no " #name)

static bool option(const char *text, const char *name, unsigned int *value)
{
	size_t length = strlen(name);

	for (const char *at = text; at != NULL; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, name, length) == 0 && at[length] == '=') {
			*value = strtoul(at + length + 1, NULL, 0);
			return true;
		}
	}
	return false;
}

static unsigned int number(const char *text, const char *name, unsigned int usual)
{
	option(text, name, &usual);
	return usual;
}

static void read_settings(void)
{
	const char *given = getenv("HAECHI_RSSDEV");
	char *copy = strdup(given == NULL ? "" : given), *next = copy;
	const char *text = "";

	for (int i = 0; i < PORTS; i++) {
		struct device *d = &devices[i];

		if (next != NULL)
			text = strsep(&next, ";");
		d->reta_size = number(text, "reta", 128);
		d->key_size = number(text, "key", 40);
		d->max_queues = number(text, "queues", QUEUES);
		d->hands_hash = number(text, "hash", 1);
		d->symmetric = number(text, "symmetric", 0);
		d->udp = number(text, "udp", 1);
		d->refuse_key = strstr(text, "refuse=key") != NULL;
		d->refuse_table = strstr(text, "refuse=table") != NULL;
		d->forget_key = strstr(text, "forget=key") != NULL;
		d->forget_table = strstr(text, "forget=table") != NULL;
		d->removable = number(text, "removable", 0);
		/* A device has a key of its own until it is told another. */
		for (int k = 0; k < KEY_MOST; k++)
			d->key[k] = 0x6d ^ k * 37;
		if (d->reta_size > ENTRIES || d->max_queues > QUEUES)
			die("HAECHI_RSSDEV: too many");
	}
	/* `text` points into it. */
}

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

/* By DPDK's number, which goes from one port to the next. */
static struct device *of_port[RTE_MAX_ETHPORTS];

static struct device *ours(uint16_t port)
{
	return ctl != NULL && port < RTE_MAX_ETHPORTS ? of_port[port] : NULL;
}

/* "net_null1" is device 1. */
static struct device *named(const char *name)
{
	const char *digits = name + strcspn(name, "0123456789");
	unsigned int number = strtoul(digits, NULL, 10);

	return *digits != '\0' && number < PORTS ? &devices[number] : NULL;
}

static unsigned int number_of(const struct device *d)
{
	return d - devices;
}

/* ---- what the device says and is told ---- */

int rte_eth_dev_info_get(uint16_t port, struct rte_eth_dev_info *info)
{
	REAL(rte_eth_dev_info_get);
	int error = real(port, info);
	struct device *d;

	if (error != 0 || ctl == NULL || strcmp(info->driver_name, "net_null") != 0)
		return error;
	d = named(rte_dev_name(info->device));
	if (d == NULL)
		return 0;
	of_port[port] = d;
	if (d->removable) {
		static const uint32_t flags = RTE_ETH_DEV_INTR_RMV;

		info->dev_flags = &flags;
	}
	info->reta_size = d->reta_size;
	info->hash_key_size = d->key_size;
	info->max_rx_queues = d->max_queues;
	if (d->hands_hash)
		info->rx_offload_capa |= RTE_ETH_RX_OFFLOAD_RSS_HASH;
	info->flow_type_rss_offloads = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | (d->udp ? RTE_ETH_RSS_UDP : 0);
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	info->rss_algo_capa = RTE_ETH_HASH_ALGO_CAPA_MASK(TOEPLITZ) |
			      (d->symmetric ? RTE_ETH_HASH_ALGO_CAPA_MASK(SYMMETRIC_TOEPLITZ) : 0);
#endif
	return 0;
}

int rte_eth_dev_callback_register(uint16_t port, enum rte_eth_event_type event, rte_eth_dev_cb_fn callback, void *arg)
{
	REAL(rte_eth_dev_callback_register);
	struct device *d = ours(port);

	if (d != NULL && event == RTE_ETH_EVENT_INTR_RMV) {
		d->on_removal = callback;
		d->of_removal = arg;
	}
	return real(port, event, callback, arg);
}

static int take(struct device *d, const struct rte_eth_rss_conf *conf)
{
	uint8_t size = d->key_size == 0 ? 40 : d->key_size;

	if (conf->rss_key != NULL) {
		if (conf->rss_key_len != size || d->refuse_key)
			return -EINVAL;
		memcpy(d->key, conf->rss_key, size);
		if (d->forget_key)
			d->key[3] ^= 0x10;
	}
	d->types = conf->rss_hf;
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	d->xors = conf->algorithm == RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ;
#endif
	return 0;
}

int rte_eth_dev_configure(uint16_t port, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf)
{
	REAL(rte_eth_dev_configure);
	struct rte_eth_conf known = *conf;
	int error;
	struct device *d = ours(port);

	if (d != NULL && d->refuse_key && conf->rx_adv_conf.rss_conf.rss_key != NULL)
		return -EINVAL;
	/* Of which net_null knows nothing. */
	if (d != NULL && d->removable)
		known.intr_conf.rmv = 0;
	error = real(port, rx, tx, &known);
	if (error != 0 || d == NULL)
		return error;
	d->queues = rx;
	d->rss = (conf->rxmode.mq_mode & RTE_ETH_MQ_RX_RSS_FLAG) != 0;
	d->hash_wanted = (conf->rxmode.offloads & RTE_ETH_RX_OFFLOAD_RSS_HASH) != 0;
	d->reta_set = d->xors = false;
	if (d->rss)
		return take(d, &conf->rx_adv_conf.rss_conf);
	return 0;
}

int rte_eth_dev_rss_hash_update(uint16_t port, struct rte_eth_rss_conf *conf)
{
	REAL(rte_eth_dev_rss_hash_update);
	struct device *d = ours(port);

	return d == NULL ? real(port, conf) : take(d, conf);
}

int rte_eth_dev_rss_hash_conf_get(uint16_t port, struct rte_eth_rss_conf *conf)
{
	REAL(rte_eth_dev_rss_hash_conf_get);
	struct device *d = ours(port);

	if (d == NULL)
		return real(port, conf);
	conf->rss_hf = d->types;
	conf->rss_key_len = d->key_size == 0 ? 40 : d->key_size;
	if (conf->rss_key != NULL)
		memcpy(conf->rss_key, d->key, conf->rss_key_len);
	return 0;
}

int rte_eth_dev_rss_reta_update(uint16_t port, struct rte_eth_rss_reta_entry64 *groups, uint16_t size)
{
	REAL(rte_eth_dev_rss_reta_update);
	struct device *d = ours(port);

	if (d == NULL)
		return real(port, groups, size);
	if (size != d->reta_size || d->refuse_table)
		return -EINVAL;
	for (uint16_t i = 0; i < size; i++) {
		uint16_t queue = groups[i / 64].reta[i % 64];

		if ((groups[i / 64].mask >> (i % 64) & 1) == 0)
			continue;
		if (queue >= d->queues)
			return -EINVAL;
		d->reta[i] = queue;
	}
	if (d->forget_table)
		d->reta[size - 1] = (d->reta[size - 1] + 1) % d->queues;
	d->reta_set = true;
	return 0;
}

int rte_eth_dev_rss_reta_query(uint16_t port, struct rte_eth_rss_reta_entry64 *groups, uint16_t size)
{
	REAL(rte_eth_dev_rss_reta_query);
	struct device *d = ours(port);

	if (d == NULL)
		return real(port, groups, size);
	if (size != d->reta_size)
		return -EINVAL;
	for (uint16_t i = 0; i < size; i++) {
		if (groups[i / 64].mask >> (i % 64) & 1)
			groups[i / 64].reta[i % 64] = d->reta[i];
	}
	return 0;
}

static int rule(struct device *d, const struct rte_flow_action *actions)
{
	const struct rte_flow_action_rss *rss = actions->conf;

	if (!d->symmetric || actions->type != RTE_FLOW_ACTION_TYPE_RSS || rss->queue_num != 0 ||
	    rss->func != RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ)
		return -ENOTSUP;
	return 0;
}

int rte_flow_validate(uint16_t port, const struct rte_flow_attr *attr, const struct rte_flow_item pattern[],
		      const struct rte_flow_action actions[], struct rte_flow_error *why)
{
	REAL(rte_flow_validate);
	struct device *d = ours(port);

	return d == NULL ? real(port, attr, pattern, actions, why) : rule(d, actions);
}

struct rte_flow *rte_flow_create(uint16_t port, const struct rte_flow_attr *attr, const struct rte_flow_item pattern[],
				 const struct rte_flow_action actions[], struct rte_flow_error *why)
{
	REAL(rte_flow_create);
	struct device *d = ours(port);

	if (d == NULL)
		return real(port, attr, pattern, actions, why);
	if (rule(d, actions) != 0) {
		rte_errno = ENOTSUP;
		return NULL;
	}
	d->xors = true;
	/* Never looked into. */
	return (struct rte_flow *)d;
}

int rte_flow_destroy(uint16_t port, struct rte_flow *flow, struct rte_flow_error *why)
{
	REAL(rte_flow_destroy);

	return ours(port) == NULL ? real(port, flow, why) : 0;
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

static uint32_t hash_of(const struct device *d, const uint8_t *source, const uint8_t *destination, size_t bytes, uint16_t from,
			uint16_t to, bool ports)
{
	uint8_t input[36];
	uint32_t words[9], key[10];
	uint32_t count = bytes / 2 + ports;

	memcpy(input, source, bytes);
	memcpy(input + bytes, destination, bytes);
	input[2 * bytes] = from >> 8;
	input[2 * bytes + 1] = from;
	input[2 * bytes + 2] = to >> 8;
	input[2 * bytes + 3] = to;
	if (d->xors) {
		for (size_t i = 0; i < bytes; i++)
			input[i] = input[bytes + i] = input[i] ^ input[bytes + i];
		for (size_t i = 2 * bytes; i < 2 * bytes + 2; i++)
			input[i] = input[i + 2] = input[i] ^ input[i + 2];
	}
	memcpy(words, input, sizeof(words));
	for (uint32_t i = 0; i < 9; i++)
		words[i] = rte_be_to_cpu_32(words[i]);
	memcpy(key, d->key, sizeof(key));
	rte_convert_rss_key(key, key, sizeof(key));
	return rte_softrss_be(words, count, (const uint8_t *)key);
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

static uint16_t queue_of(const struct device *d, uint32_t hash)
{
	return d->rss && d->reta_size > 0 && d->queues > 1 ? d->reta[hash % d->reta_size] : 0;
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
