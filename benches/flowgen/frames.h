/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What flowgen's frames look like: Ethernet, IPv4 and UDP or TCP with right checksums, in one length or in those of an
 * IMIX. Addresses and ports are computed from a flow's number; everything else is copied from a template.
 */
#ifndef FLOWGEN_FRAMES_H
#define FLOWGEN_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_memcpy.h>

#define MIN_LENGTH 60u
#define MAX_LENGTH 1514u
#define HEADERS 42u /* Ethernet 14, IPv4 20, UDP 8 */
#define TCP_HEADERS 54u
#define TCP_ACK 0x10
#define TCP_PSH 0x08
#define TCP_SYN 0x02
#define TCP_FIN 0x01

static uint64_t seed = 1; /* which addresses */

#define MIX 12u
#define SHAPES 3u
static const uint32_t lengths[SHAPES] = { MIN_LENGTH, 566, MAX_LENGTH };
/* Which of these the frames of an IMIX have, one after the other. */
static const uint8_t mix[MIX] = { 0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1 };
/* TCP: bytes of data in the frames of a whole mix, and in the first so many of one that begins somewhere in it. */
static uint32_t mix_data, mix_part[MIX][MIX];

/* A frame of one length, the fields that differ by flow left zero. */
struct shape {
	uint32_t length;
	uint32_t ip_sum;  /* of the constant IPv4 header words, one's complement, unfolded */
	uint32_t udp_sum; /* of the constant words of pseudo header, UDP or TCP header and payload */
	uint32_t syn_sums[2]; /* TCP: these two of a segment without data */
	bool reply;
	uint8_t frame[MAX_LENGTH + 64] __attribute__((aligned(64)));
} __attribute__((aligned(64)));

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

/* Ethernet, IPv4 and TCP; what differs by flow and by segment is left zero. */
static void build_tcp_template(struct shape *shape)
{
	uint8_t *f = shape->frame, *ip = f + 14, *head = f + 34;
	uint32_t tcp_len = shape->length - 34, i;

	ip[9] = 6;
	memset(head, 0, 20);
	head[shape->reply ? 0 : 2] = 443 >> 8;
	head[shape->reply ? 1 : 3] = 443 & 0xff;
	head[12] = 5 << 4;
	head[14] = head[15] = 0xff; /* the largest window without an option */
	for (i = TCP_HEADERS; i < shape->length; i++)
		f[i] = (uint8_t)i;
	shape->ip_sum = sum_words(ip, 20);
	shape->udp_sum = sum_words(head, tcp_len) + tcp_len + 6;
	/* A segment without data ends with its header; what follows is padding. */
	shape->syn_sums[0] = shape->ip_sum - (shape->length - 14) + 40;
	shape->syn_sums[1] = sum_words(head, 20) + 20 + 6;
}

static void build_template(struct shape *shape, uint32_t frame_length, bool reply, bool tcp)
{
	static const uint8_t client[6] = { 0x02, 0, 0, 0, 0, 1 }, server[6] = { 0x02, 0, 0, 0, 0, 2 };
	uint8_t *f = shape->frame, *ip = f + 14, *udp = f + 34;
	uint32_t ip_len = frame_length - 14, udp_len = frame_length - 34, i;

	shape->length = frame_length;
	shape->reply = reply;
	memcpy(f, shape->reply ? client : server, 6);
	memcpy(f + 6, shape->reply ? server : client, 6);
	f[12] = 0x08;
	ip[0] = 0x45;
	ip[2] = ip_len >> 8;
	ip[3] = ip_len & 0xff;
	ip[6] = 0x40; /* do not fragment: identification 0 is then right (RFC 6864) */
	ip[8] = 64;
	ip[9] = 17;
	udp[shape->reply ? 0 : 2] = 443 >> 8;
	udp[shape->reply ? 1 : 3] = 443 & 0xff;
	udp[4] = udp_len >> 8;
	udp[5] = udp_len & 0xff;
	for (i = HEADERS; i < frame_length; i++)
		f[i] = (uint8_t)i;
	shape->ip_sum = sum_words(ip, 20);
	shape->udp_sum = sum_words(udp, udp_len) + udp_len + 17;
	if (tcp)
		build_tcp_template(shape);
}

/* How much data has gone before each frame, whichever frame of the mix a connection began with. */
static __rte_unused void sum_mix(void)
{
	uint32_t begin, i;

	for (begin = 0; begin < MIX; begin++) {
		mix_data = 0;
		for (i = 0; i < MIX; i++) {
			mix_part[begin][i] = mix_data;
			mix_data += lengths[mix[(begin + i) % MIX]] - TCP_HEADERS;
		}
	}
}

/*
 * A frame's constant bytes. A device's DMA costs the CPU nothing, so the payload, which is the same in every frame of any
 * length, is copied only into buffers that do not hold it from an earlier use: its last bytes tell, since nobody writes there.
 */
static __rte_always_inline void put_constant(const struct shape *shape, uint8_t *out, uint32_t len)
{
	memcpy(out, shape->frame, 64); /* a constant length: vector moves; any data room holds it */
	if (len != MIN_LENGTH && (len < 72 || memcmp(out + len - 8, shape->frame + len - 8, 8) != 0))
		rte_memcpy(out, shape->frame, len);
}

/* Flow number to five-tuple: 24 bits of client address, so that no two flows are alike; port and server follow. */
static __rte_always_inline void write_frame(const struct shape *shape, uint32_t flow, uint8_t *out, uint32_t len)
{
	const uint32_t id = (flow * 0x9e3779b1u + (uint32_t)seed) & 0xffffff;
	const uint32_t client = 0x0a000000u | id;
	const uint32_t server = 0xc6120000u | ((flow * 0x85ebca77u) >> 22); /* 198.18.0.0/22 */
	const uint16_t port = 0x8000u | (uint16_t)((flow * 0xc2b2ae3du) >> 17);
	const uint32_t addresses = (client >> 16) + (client & 0xffff) + (server >> 16) + (server & 0xffff);
	const uint16_t ip_sum = rte_cpu_to_be_16(fold(shape->ip_sum + addresses));
	const uint32_t client_be = rte_cpu_to_be_32(client), server_be = rte_cpu_to_be_32(server);
	const uint16_t port_be = rte_cpu_to_be_16(port);
	uint16_t udp_sum = rte_cpu_to_be_16(fold(shape->udp_sum + addresses + port));

	if (unlikely(udp_sum == 0))
		udp_sum = 0xffff; /* zero would mean none (RFC 768) */
	put_constant(shape, out, len);
	memcpy(out + 24, &ip_sum, 2);
	memcpy(out + 26, shape->reply ? &server_be : &client_be, 4);
	memcpy(out + 30, shape->reply ? &client_be : &server_be, 4);
	memcpy(out + (shape->reply ? 36 : 34), &port_be, 2);
	memcpy(out + 40, &udp_sum, 2);
}

static __rte_always_inline uint32_t words_of(uint32_t value)
{
	return (value >> 16) + (value & 0xffff);
}

/* A segment with these numbers, from the ISNs on. */
static __rte_always_inline void put_segment(const struct shape *shape, uint32_t flow, uint8_t *out, uint32_t len,
					    uint32_t sent, uint32_t got, uint8_t flags, bool has_data)
{
	const uint32_t id = (flow * 0x9e3779b1u + (uint32_t)seed) & 0xffffff;
	const uint32_t client = 0x0a000000u | id;
	const uint32_t server = 0xc6120000u | ((flow * 0x85ebca77u) >> 22); /* 198.18.0.0/22 */
	const uint16_t port = 0x8000u | (uint16_t)((flow * 0xc2b2ae3du) >> 17);
	const uint32_t addresses = words_of(client) + words_of(server);
	const uint32_t isns[2] = { flow * 0x27d4eb2fu + 1, flow * 0x165667b1u + 7 };
	const bool syn = !has_data;
	const uint32_t seq = isns[shape->reply] + sent;
	const uint32_t ack = flags & TCP_ACK ? isns[!shape->reply] + got : 0;
	const uint16_t ip_len = rte_cpu_to_be_16(syn ? 40 : (uint16_t)(len - 14));
	const uint16_t ip_sum = rte_cpu_to_be_16(fold((syn ? shape->syn_sums[0] : shape->ip_sum) + addresses));
	const uint16_t tcp_sum = rte_cpu_to_be_16(
		fold((syn ? shape->syn_sums[1] : shape->udp_sum) + addresses + port + words_of(seq) + words_of(ack) + flags));
	const uint32_t client_be = rte_cpu_to_be_32(client), server_be = rte_cpu_to_be_32(server);
	const uint32_t seq_be = rte_cpu_to_be_32(seq), ack_be = rte_cpu_to_be_32(ack);
	const uint16_t port_be = rte_cpu_to_be_16(port);

	put_constant(shape, out, len);
	memcpy(out + 16, &ip_len, 2);
	memcpy(out + 24, &ip_sum, 2);
	memcpy(out + 26, shape->reply ? &server_be : &client_be, 4);
	memcpy(out + 30, shape->reply ? &client_be : &server_be, 4);
	memcpy(out + (shape->reply ? 36 : 34), &port_be, 2);
	memcpy(out + 38, &seq_be, 4);
	memcpy(out + 42, &ack_be, 4);
	out[47] = flags;
	memcpy(out + 50, &tcp_sum, 2);
}

#endif
