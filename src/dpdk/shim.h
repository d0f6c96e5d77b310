/* What Rust cannot call by itself: DPDK's inline functions, at burst granularity, and what differs between releases.
 * Everything that bindgen shows to Rust is named hx_ or HX_, or listed in build.rs. */
#ifndef HAECHI_SHIM_H
#define HAECHI_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_acl.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_version.h>

/* ---- compat: differences between DPDK releases, all of them here ---- */

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK 22.11 or newer is needed"
#endif

/* ---- layout: fields of struct rte_mbuf by their offsets, the same to Rust whatever the release's struct looks like ---- */

enum {
	HX_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	HX_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	HX_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	HX_MBUF_PORT = offsetof(struct rte_mbuf, port),
	HX_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	HX_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	HX_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	HX_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	HX_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	HX_MBUF_VLAN_TCI_OUTER = offsetof(struct rte_mbuf, vlan_tci_outer),
	HX_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss),
	HX_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	HX_POOL_HEADER = RTE_ALIGN_CEIL(sizeof(struct rte_mempool_objhdr), RTE_MEMPOOL_ALIGN),
	HX_MBUF_SIZE = sizeof(struct rte_mbuf),
	HX_HEADROOM = RTE_PKTMBUF_HEADROOM,
	HX_PORT_INVALID = RTE_MBUF_PORT_INVALID,
	HX_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE,
};

static const uint64_t HX_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t HX_RX_QINQ_STRIPPED = RTE_MBUF_F_RX_QINQ_STRIPPED;
static const uint64_t HX_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t HX_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t HX_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t HX_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t HX_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;

static const uint64_t HX_OFFLOAD_RX_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t HX_OFFLOAD_RX_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t HX_OFFLOAD_RX_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t HX_OFFLOAD_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint32_t HX_DEV_INTR_RMV = RTE_ETH_DEV_INTR_RMV;
static const uint32_t HX_EVENT_INTR_RMV = RTE_ETH_EVENT_INTR_RMV;
static const uint32_t HX_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;

/* ---- packets ---- */

/* rte_eth_rx_burst. */
uint16_t hx_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
/* rte_eth_tx_burst. */
uint16_t hx_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
/* One mbuf with everything reset; NULL: the pool is empty. */
struct rte_mbuf *hx_mbuf_alloc(struct rte_mempool *pool);
/* `count` mbufs or none (false). */
bool hx_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, uint32_t count);
/* Puts a packet, chained or not, back into its pool. */
void hx_mbuf_free(struct rte_mbuf *packet);
/* Puts the tags that the device took out of the frame back into it. False: there is no headroom for them. */
bool hx_vlan_restore(struct rte_mbuf *packet);
/* rte_pktmbuf_pool_create, with a stack of buffers behind the workers' caches. NULL: rte_errno. */
struct rte_mempool *hx_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t room, int socket);
/* A pool without caches whose every object fills a page of `page` bytes, in one piece, without a gap. NULL: rte_errno. */
struct rte_mempool *hx_page_pool_create(const char *name, uint32_t count, uint32_t page);
/* Takes objects out of a pool past all caches; returns how many it got. */
uint32_t hx_pool_take(struct rte_mempool *pool, void **objects, uint32_t count);
/* Puts objects back, past all caches. */
void hx_pool_give(struct rte_mempool *pool, void **objects, uint32_t count);
/* Number of objects in all. */
uint32_t hx_pool_size(const struct rte_mempool *pool);

/* ---- rings of 16-byte elements, one producer, one consumer ---- */

/* For exactly `count` elements. NULL: rte_errno. */
struct rte_ring *hx_ring_create(const char *name, uint32_t count, int socket);
void hx_ring_free(struct rte_ring *ring);
/* As many of `count` elements as there is room for, from the first on; how many. */
uint32_t hx_ring_push(struct rte_ring *ring, const void *elements, uint32_t count);
/* Up to `count` elements; how many. */
uint32_t hx_ring_pop(struct rte_ring *ring, void *elements, uint32_t count);
uint32_t hx_ring_count(const struct rte_ring *ring);

/* ---- the rest ---- */

/* rte_errno is thread-local. */
int hx_errno(void);
/* The time stamp counter. */
uint64_t hx_tsc(void);
/* The calling thread's lcore id. */
uint32_t hx_lcore(void);
/* "DPDK 22.11.11" */
const char *hx_version(void);
/* What a device is to hash with. */
struct hx_rss {
	const uint8_t *key; /* NULL: the driver's own */
	uint8_t key_len;
	uint64_t types;	    /* HX_RSS_... */
	uint32_t algorithm; /* HX_HASH_TOEPLITZ and so on; where it cannot be said (before 23.11), ignored */
};
/* rte_eth_dev_configure with these offloads and nothing else. `removal`: tell of hot unplug. `rx_interrupts`: make the
 * receive queues' interrupts. `rss`: spread packets over the receive queues; NULL: do not. */
int hx_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint32_t mtu, uint64_t rx_offloads,
		      bool removal, bool rx_interrupts, const struct hx_rss *rss);
/* The port of the device of this name, or a negative errno. */
int hx_port_of_device(const char *name);
/* Link without waiting: up, and the speed in Mbit/s (HX_SPEED_UNKNOWN). Negative errno on failure. */
int hx_link(uint16_t port, bool *up, uint32_t *speed);

/* ---- RSS ---- */

static const uint64_t HX_RSS_IPV4 = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t HX_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t HX_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t HX_RSS_IPV4_OTHER = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t HX_RSS_IPV6 = RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
static const uint64_t HX_RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
/* To packets without extension headers the same; the only one of the two that QEMU's igb knows, and the other is then hashed by
   addresses alone. */
static const uint64_t HX_RSS_IPV6_TCP_EX = RTE_ETH_RSS_IPV6_TCP_EX;
static const uint64_t HX_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t HX_RSS_IPV6_OTHER = RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

enum {
	HX_HASH_TOEPLITZ = 1,
	HX_HASH_SYMMETRIC = 2,
	HX_HASH_SORTED = 4,
	HX_RETA_MOST = 4096, /* entries of the largest table that is set */
};

/* The HX_HASH_... that a device says it has; 0: it does not say (before 23.11). */
uint32_t hx_rss_algorithms(const struct rte_eth_dev_info *info);
/* rte_eth_dev_rss_hash_update. */
int hx_rss_set(uint16_t port, const struct hx_rss *rss);
/* rte_eth_dev_rss_hash_conf_get: `key_len` bytes of the key, and the types. */
int hx_rss_get(uint16_t port, uint8_t *key, uint8_t key_len, uint64_t *types);
/* Asks for symmetric Toeplitz by flow rules, one for each type: `create` makes them, else they are only tried. `queues`: where a
 * device wants its table in the rule. 0: all were taken; what was made before one that was not is taken back. */
int hx_rss_flows(uint16_t port, const struct hx_rss *rss, const uint16_t *queues, uint16_t count, bool create);
/* Sets a table of `size` entries, up to HX_RETA_MOST. */
int hx_reta_set(uint16_t port, const uint16_t *queues, uint16_t size);
/* Reads it. */
int hx_reta_get(uint16_t port, uint16_t *queues, uint16_t size);
/* rte_softrss_be, DPDK's own Toeplitz hash: `input` in 32-bit words of the machine, `key` of 40 bytes in network order. For tests. */
uint32_t hx_softrss(const uint32_t *input, uint32_t words, const uint8_t *key);

/* A stream whose every write goes to `sink`. */
typedef void (*hx_sink)(const char *text, size_t length);
FILE *hx_log_stream(hx_sink sink);
/* libbpf and libxdp, where a driver has loaded them, print to standard error: to `stream` instead. */
void hx_quiet_libbpf(FILE *stream);

#endif
