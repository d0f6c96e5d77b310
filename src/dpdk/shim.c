/* See shim.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_thash.h>

uint16_t hx_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t hx_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *hx_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

bool hx_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, uint32_t count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count) == 0;
}

void hx_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

static bool insert_tag(struct rte_mbuf *packet, uint16_t type, uint16_t tci)
{
	char *start;
	uint16_t tag[2] = { rte_cpu_to_be_16(type), rte_cpu_to_be_16(tci) };

	if (packet->data_len < 2 * RTE_ETHER_ADDR_LEN)
		return false;
	start = rte_pktmbuf_prepend(packet, sizeof(tag));
	if (start == NULL)
		return false;
	memmove(start, start + sizeof(tag), 2 * RTE_ETHER_ADDR_LEN);
	memcpy(start + 2 * RTE_ETHER_ADDR_LEN, tag, sizeof(tag));
	return true;
}

bool hx_vlan_restore(struct rte_mbuf *packet)
{
	/* The inner tag first: each goes right behind the addresses. A device that takes out one tag does not say of which
	 * type it was. */
	if ((packet->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) &&
	    !insert_tag(packet, RTE_ETHER_TYPE_VLAN, packet->vlan_tci))
		return false;
	if ((packet->ol_flags & RTE_MBUF_F_RX_QINQ_STRIPPED) &&
	    !insert_tag(packet, RTE_ETHER_TYPE_QINQ, packet->vlan_tci_outer))
		return false;
	packet->ol_flags &= ~(RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_QINQ_STRIPPED);
	return true;
}

/*
 * What keeps the buffers that no worker's cache has room for. A stack hands out the ones that came back last, which are still in the
 * CPU's caches; DPDK's default is a queue that goes round all of them. (Workers that hand packets over put back what others took, so
 * their caches overflow all the time.) "lf_stack" is slower than either: a bulk of buffers is a walk along a list that other CPUs
 * wrote. NULL: DPDK decides, or who wrote --mbuf-pool-ops-name, or whoever made a device with buffers of its own.
 */
static const char *pool_ops(void)
{
	static const char name[] = "stack";
	uint32_t i;

	if (rte_eal_mbuf_user_pool_ops() != NULL || rte_mbuf_platform_mempool_ops() != NULL)
		return NULL;
	for (i = 0; i < rte_mempool_ops_table.num_ops; i++)
		if (strcmp(rte_mempool_ops_table.ops[i].name, name) == 0)
			return name;
	return NULL;
}

struct rte_mempool *hx_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t room, int socket)
{
	return rte_pktmbuf_pool_create_by_ops(name, count, cache, 0, room, socket, pool_ops());
}

struct rte_mempool *hx_page_pool_create(const char *name, uint32_t count, uint32_t page)
{
	const unsigned int flags = RTE_MEMPOOL_F_NO_SPREAD;
	const uint32_t element = page - HX_POOL_HEADER;
	struct rte_pktmbuf_pool_private private;
	char zone_name[RTE_MEMZONE_NAMESIZE];
	const struct rte_memzone *zone;
	struct rte_mempool *pool;
	const char *ops;

	if (rte_mempool_calc_obj_size(element, flags, NULL) != page) {
		rte_errno = EINVAL;
		return NULL;
	}
	memset(&private, 0, sizeof(private));
	private.mbuf_data_room_size = element - sizeof(struct rte_mbuf);
	pool = rte_mempool_create_empty(name, count, element, 0, sizeof(private), SOCKET_ID_ANY, flags);
	if (pool == NULL)
		return NULL;
	rte_errno = ENOMEM;
	ops = pool_ops();
	if (rte_mempool_set_ops_byname(pool, ops != NULL ? ops : rte_mbuf_best_mempool_ops(), NULL) != 0)
		goto fail;
	rte_pktmbuf_pool_init(pool, &private);
	snprintf(zone_name, sizeof(zone_name), "%s_pages", name);
	zone = rte_memzone_reserve_aligned(zone_name, (size_t)count * page, SOCKET_ID_ANY,
					   RTE_MEMZONE_1GB | RTE_MEMZONE_SIZE_HINT_ONLY | RTE_MEMZONE_IOVA_CONTIG, page);
	if (zone == NULL)
		goto fail;
	if (rte_mempool_populate_iova(pool, zone->addr, zone->iova, (size_t)count * page, NULL, NULL) != (int)count) {
		rte_mempool_free(pool);
		rte_memzone_free(zone);
		rte_errno = ENOMEM;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
fail:
	rte_mempool_free(pool);
	return NULL;
}

uint32_t hx_pool_take(struct rte_mempool *pool, void **objects, uint32_t count)
{
	uint32_t got = 0;

	while (got < count && rte_mempool_generic_get(pool, objects + got, 1, NULL) == 0)
		got++;
	return got;
}

void hx_pool_give(struct rte_mempool *pool, void **objects, uint32_t count)
{
	rte_mempool_generic_put(pool, objects, count, NULL);
}

uint32_t hx_pool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

int hx_errno(void)
{
	return rte_errno;
}

uint64_t hx_tsc(void)
{
	return rte_rdtsc();
}

const char *hx_version(void)
{
	return rte_version();
}

uint32_t hx_rss_algorithms(const struct rte_eth_dev_info *info)
{
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	const uint32_t capa = info->rss_algo_capa;
	uint32_t algorithms = 0;

	/* What a driver chooses by itself is Toeplitz with all that are known; packets will tell. */
	if (capa & (RTE_ETH_HASH_ALGO_CAPA_MASK(TOEPLITZ) | RTE_ETH_HASH_ALGO_CAPA_MASK(DEFAULT)))
		algorithms |= HX_HASH_TOEPLITZ;
	if (capa & RTE_ETH_HASH_ALGO_CAPA_MASK(SYMMETRIC_TOEPLITZ))
		algorithms |= HX_HASH_SYMMETRIC;
	if (capa & RTE_ETH_HASH_ALGO_CAPA_MASK(SYMMETRIC_TOEPLITZ_SORT))
		algorithms |= HX_HASH_SORTED;
	return algorithms;
#else
	(void)info;
	return 0;
#endif
}

static struct rte_eth_rss_conf rss_conf(const struct hx_rss *rss)
{
	struct rte_eth_rss_conf conf;

	memset(&conf, 0, sizeof(conf));
	/* DPDK reads it only. */
	conf.rss_key = (uint8_t *)(uintptr_t)rss->key;
	conf.rss_key_len = rss->key == NULL ? 0 : rss->key_len;
	conf.rss_hf = rss->types;
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	if (rss->algorithm == HX_HASH_SYMMETRIC)
		conf.algorithm = RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ;
	else if (rss->algorithm == HX_HASH_SORTED)
		conf.algorithm = RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ_SORT;
	else
		conf.algorithm = RTE_ETH_HASH_FUNCTION_DEFAULT;
#endif
	return conf;
}

int hx_rss_set(uint16_t port, const struct hx_rss *rss)
{
	struct rte_eth_rss_conf conf = rss_conf(rss);

	return rte_eth_dev_rss_hash_update(port, &conf);
}

int hx_rss_get(uint16_t port, uint8_t *key, uint8_t key_len, uint64_t *types)
{
	struct rte_eth_rss_conf conf;
	int error;

	memset(&conf, 0, sizeof(conf));
	conf.rss_key = key;
	conf.rss_key_len = key_len;
	error = rte_eth_dev_rss_hash_conf_get(port, &conf);
	*types = conf.rss_hf;
	return error;
}

/* What one rule is about: the headers, and the type behind them. */
struct rss_pattern {
	enum rte_flow_item_type l3;
	enum rte_flow_item_type l4; /* END: any */
	uint64_t types;
};

static struct rte_flow *rss_flow(uint16_t port, const struct hx_rss *rss, const struct rss_pattern *pattern,
				 const uint16_t *queues, uint16_t count, bool create, int *error)
{
	const struct rte_flow_attr attr = { .ingress = 1 };
	const struct rte_flow_item items[] = {
		{ .type = RTE_FLOW_ITEM_TYPE_ETH },
		{ .type = pattern->l3 },
		{ .type = pattern->l4 },
		{ .type = RTE_FLOW_ITEM_TYPE_END },
	};
	struct rte_flow_action_rss action = {
		.func = RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ,
		.types = rss->types & pattern->types,
		.key = rss->key,
		.key_len = rss->key == NULL ? 0 : rss->key_len,
		.queue = queues,
		.queue_num = count,
	};
	const struct rte_flow_action actions[] = {
		{ .type = RTE_FLOW_ACTION_TYPE_RSS, .conf = &action },
		{ .type = RTE_FLOW_ACTION_TYPE_END },
	};
	struct rte_flow_error why;
	struct rte_flow *flow = NULL;

	memset(&why, 0, sizeof(why));
	*error = rte_flow_validate(port, &attr, items, actions, &why);
	if (*error == 0 && create) {
		flow = rte_flow_create(port, &attr, items, actions, &why);
		*error = flow == NULL ? -rte_errno : 0;
	}
	return flow;
}

int hx_rss_flows(uint16_t port, const struct hx_rss *rss, const uint16_t *queues, uint16_t count, bool create)
{
	const struct rss_pattern patterns[] = {
		{ RTE_FLOW_ITEM_TYPE_IPV4, RTE_FLOW_ITEM_TYPE_TCP, HX_RSS_IPV4_TCP },
		{ RTE_FLOW_ITEM_TYPE_IPV4, RTE_FLOW_ITEM_TYPE_UDP, HX_RSS_IPV4_UDP },
		{ RTE_FLOW_ITEM_TYPE_IPV4, RTE_FLOW_ITEM_TYPE_END, HX_RSS_IPV4_OTHER },
		{ RTE_FLOW_ITEM_TYPE_IPV6, RTE_FLOW_ITEM_TYPE_TCP, HX_RSS_IPV6_TCP },
		{ RTE_FLOW_ITEM_TYPE_IPV6, RTE_FLOW_ITEM_TYPE_UDP, HX_RSS_IPV6_UDP },
		{ RTE_FLOW_ITEM_TYPE_IPV6, RTE_FLOW_ITEM_TYPE_END, HX_RSS_IPV6_OTHER },
	};
	struct rte_flow *made[RTE_DIM(patterns)];
	size_t count_made = 0;

	for (size_t i = 0; i < RTE_DIM(patterns); i++) {
		struct rte_flow *flow;
		int error;

		if ((rss->types & patterns[i].types) == 0)
			continue;
		flow = rss_flow(port, rss, &patterns[i], queues, count, create, &error);
		if (error != 0) {
			struct rte_flow_error why;

			while (count_made > 0)
				rte_flow_destroy(port, made[--count_made], &why);
			return error;
		}
		if (flow != NULL)
			made[count_made++] = flow;
	}
	return 0;
}

static int reta(uint16_t port, uint16_t *queues, uint16_t size, bool set)
{
	struct rte_eth_rss_reta_entry64 groups[HX_RETA_MOST / RTE_ETH_RETA_GROUP_SIZE];
	int error;

	if (size > HX_RETA_MOST)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (uint16_t i = 0; i < size; i++) {
		struct rte_eth_rss_reta_entry64 *group = &groups[i / RTE_ETH_RETA_GROUP_SIZE];

		group->mask |= 1ull << (i % RTE_ETH_RETA_GROUP_SIZE);
		group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	if (set)
		return rte_eth_dev_rss_reta_update(port, groups, size);
	error = rte_eth_dev_rss_reta_query(port, groups, size);
	for (uint16_t i = 0; i < size; i++)
		queues[i] = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
	return error;
}

int hx_reta_set(uint16_t port, const uint16_t *queues, uint16_t size)
{
	/* It is only read when the table is set. */
	return reta(port, (uint16_t *)(uintptr_t)queues, size, true);
}

int hx_reta_get(uint16_t port, uint16_t *queues, uint16_t size)
{
	/* Other than any queue: what a driver does not write is seen. */
	memset(queues, 0xff, size * sizeof(*queues));
	return reta(port, queues, size, false);
}

uint32_t hx_softrss(const uint32_t *input, uint32_t words, const uint8_t *key)
{
	uint32_t converted[10];

	/* The reference takes the key in words of the machine. */
	rte_convert_rss_key((const uint32_t *)(uintptr_t)key, converted, sizeof(converted));
	return rte_softrss_be((uint32_t *)(uintptr_t)input, words, (const uint8_t *)converted);
}

int hx_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint32_t mtu, uint64_t rx_offloads,
		      bool removal, bool rx_interrupts, const struct hx_rss *rss)
{
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
	conf.rxmode.mtu = mtu;
	conf.rxmode.offloads = rx_offloads;
	conf.txmode.mq_mode = RTE_ETH_MQ_TX_NONE;
	conf.intr_conf.rmv = removal;
	conf.intr_conf.rxq = rx_interrupts;
	if (rss != NULL) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf = rss_conf(rss);
	}
	return rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
}

int hx_port_of_device(const char *name)
{
	uint16_t port;

	RTE_ETH_FOREACH_DEV(port) {
		struct rte_eth_dev_info info;

		if (rte_eth_dev_info_get(port, &info) == 0 && info.device != NULL &&
		    strcmp(rte_dev_name(info.device), name) == 0)
			return port;
	}
	return -ENODEV;
}

int hx_link(uint16_t port, bool *up, uint32_t *speed)
{
	struct rte_eth_link link;
	int error;

	memset(&link, 0, sizeof(link));
	error = rte_eth_link_get_nowait(port, &link);
	*up = link.link_status == RTE_ETH_LINK_UP;
	*speed = link.link_speed;
	return error;
}

static ssize_t to_sink(void *cookie, const char *text, size_t length)
{
	((hx_sink)cookie)(text, length);
	return (ssize_t)length;
}

FILE *hx_log_stream(hx_sink sink)
{
	cookie_io_functions_t functions = { .write = to_sink };
	FILE *stream = fopencookie((void *)sink, "w", functions);

	if (stream != NULL)
		setvbuf(stream, NULL, _IOLBF, 0);
	return stream;
}

static FILE *libbpf_stream;

static int print_to_stream(int level, const char *format, va_list arguments)
{
	/* 0 is a warning, 1 information, 2 debugging (enum libbpf_print_level, enum libxdp_print_level). */
	if (level > 0 || libbpf_stream == NULL)
		return 0;
	return vfprintf(libbpf_stream, format, arguments);
}

void hx_quiet_libbpf(FILE *stream)
{
	static const char *const setters[][2] = {
		{ "libbpf.so.1", "libbpf_set_print" },
		{ "libbpf.so.0", "libbpf_set_print" },
		{ "libxdp.so.1", "libxdp_set_print" },
	};

	libbpf_stream = stream;
	for (size_t i = 0; i < RTE_DIM(setters); i++) {
		/* Only if a driver has loaded it. It stays loaded: the drivers are never unloaded. */
		void *library = dlopen(setters[i][0], RTLD_NOW | RTLD_NOLOAD);
		void (*set_print)(int (*)(int, const char *, va_list));

		if (library == NULL)
			continue;
		*(void **)&set_print = dlsym(library, setters[i][1]);
		if (set_print != NULL)
			set_print(print_to_stream);
	}
}

uint32_t hx_lcore(void)
{
	return rte_lcore_id();
}

#define RING_ELEMENT 16

struct rte_ring *hx_ring_create(const char *name, uint32_t count, int socket)
{
	return rte_ring_create_elem(name, RING_ELEMENT, count, socket,
				    RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

void hx_ring_free(struct rte_ring *ring)
{
	rte_ring_free(ring);
}

uint32_t hx_ring_push(struct rte_ring *ring, const void *elements, uint32_t count)
{
	return rte_ring_sp_enqueue_burst_elem(ring, elements, RING_ELEMENT, count, NULL);
}

uint32_t hx_ring_pop(struct rte_ring *ring, void *elements, uint32_t count)
{
	return rte_ring_sc_dequeue_burst_elem(ring, elements, RING_ELEMENT, count, NULL);
}

uint32_t hx_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}
