/* SPDX-License-Identifier: Apache-2.0 */
/* In which order flows are met: each pass over all of them has one of its own. */
#ifndef FLOWGEN_WALK_H
#define FLOWGEN_WALK_H

#include <stdint.h>

#define MIN_PASS 4096u

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

/* Packets of a pass. Few flows keep an order for a while, so that drawing a new one costs nothing that could be measured. */
static uint32_t pass_length(uint32_t flows)
{
	return flows >= MIN_PASS ? flows : flows * ((MIN_PASS + flows - 1) / flows);
}

/* From each flow to the next one: no common divisor with `flows`, so a pass meets every flow; 0 only for a single one. */
static uint32_t new_stride(uint64_t *random, uint32_t flows)
{
	uint32_t stride;

	do
		stride = 1 + next_random(random) % flows;
	while (gcd(stride, flows) != 1);
	return stride % flows;
}

#endif
