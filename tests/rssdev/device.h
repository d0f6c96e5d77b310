/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What net_null's devices say of themselves and are told where a library is preloaded that includes this: RSS with a key and a
 * table, kept as they are set, refused or forgotten. Which packets come is up to the library: rssdev.c, and
 * benches/flowgen/queues.c. It calls read_settings() before anything of it counts.
 *
 * HAECHI_RSSDEV      what net_null0, net_null1 and so on are, separated by ';', the last one for all others:
 *   "reta=128,key=40,queues=16,hash=1": entries of the table (0: none), bytes of the key (0: does not say, takes 40), queues at
 *   most, whether it hands the hash over. "symmetric=1": takes flow rules for symmetric Toeplitz (XOR); "udp=0": hashes UDP by its
 *   addresses, and says so; "refuse=key", "refuse=table": does not take it; "forget=key", "forget=table": takes it and keeps another;
 *   "removable=1": says when it is pulled out (it can be opened again at once).
 */
#ifndef RSSDEV_DEVICE_H
#define RSSDEV_DEVICE_H

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_thash.h>
#include <rte_version.h>

#define PORTS 4
#define QUEUES 16
#define ENTRIES 4096
#define KEY_MOST 255

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

static struct device devices[PORTS];
static bool loaded; /* or nothing is touched */

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
	loaded = true;
	/* `text` points into the copy. */
}

/* By DPDK's number, which goes from one port to the next. */
static struct device *of_port[RTE_MAX_ETHPORTS];

static struct device *ours(uint16_t port)
{
	return loaded && port < RTE_MAX_ETHPORTS ? of_port[port] : NULL;
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

	if (error != 0 || !loaded || strcmp(info->driver_name, "net_null") != 0)
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

/* Of IPv4 (4 bytes an address) or IPv6 (16), with the ports or without. */
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

/* Where key and table send it. */
static uint16_t queue_of(const struct device *d, uint32_t hash)
{
	return d->rss && d->reta_size > 0 && d->queues > 1 ? d->reta[hash % d->reta_size] : 0;
}

#endif
