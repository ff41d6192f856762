/* CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320) of short texts.
 *
 * With carry-less multiplication where the processor has it: 16 bytes at a time are folded into a
 * remainder of 128 bits, which is reduced at the end (V. Gopal et al., "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009); elsewhere eight bytes at a time
 * with tables. tests/test_core_checksum.py compares both with zlib.
 */
#ifndef ALPHAPULSE_CRC32_H
#define ALPHAPULSE_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    /* Zero bytes that the caller provides before the text. */
    CRC_ROOM = 16,
};

static uint32_t crc_tables[8][256];
static int crc_folds;

#if defined(__x86_64__)
#include <immintrin.h>

/* `length`: a multiple of 16, not 0. The remainder starts at 0. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t
crc_fold(const uint8_t *data, size_t length)
{
    /* x^160 and x^96, x^64 modulo the polynomial; the polynomial and its inverse, all reflected. */
    const __m128i fold = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i last = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    const __m128i low = _mm_set_epi32(0, 0, 0, -1);
    __m128i rest = _mm_loadu_si128((const __m128i *)data);
    __m128i product;

    for (size_t at = 16; at < length; at += 16) {
        product = _mm_clmulepi64_si128(rest, fold, 0x11);
        rest = _mm_clmulepi64_si128(rest, fold, 0x00);
        rest = _mm_xor_si128(rest, _mm_loadu_si128((const __m128i *)(data + at)));
        rest = _mm_xor_si128(rest, product);
    }
    /* 128 bits to 64 by way of 96, then Barrett's reduction to 32. */
    product = _mm_clmulepi64_si128(rest, fold, 0x10);
    rest = _mm_xor_si128(_mm_srli_si128(rest, 8), product);
    product = _mm_clmulepi64_si128(_mm_and_si128(rest, low), last, 0x00);
    rest = _mm_xor_si128(_mm_srli_si128(rest, 4), product);
    product = _mm_clmulepi64_si128(_mm_and_si128(rest, low), barrett, 0x10);
    product = _mm_clmulepi64_si128(_mm_and_si128(product, low), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(rest, product), 1);
}
#else
static uint32_t
crc_fold(const uint8_t *data, size_t length)
{
    (void)data;
    (void)length;
    return 0;
}
#endif

static void
crc_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
        crc_tables[0][i] = value;
    }
    for (int i = 0; i < 256; i++)
        for (int table = 1; table < 8; table++) {
            uint32_t value = crc_tables[table - 1][i];
            crc_tables[table][i] = (value >> 8) ^ crc_tables[0][value & 0xFF];
        }
#if defined(__x86_64__)
    __builtin_cpu_init();
    crc_folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

static uint32_t
crc_by_tables(const uint8_t *data, size_t length)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (; length >= 8; data += 8, length -= 8) {
        crc ^= data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
        crc = crc_tables[7][crc & 0xFF] ^ crc_tables[6][(crc >> 8) & 0xFF]
            ^ crc_tables[5][(crc >> 16) & 0xFF] ^ crc_tables[4][crc >> 24]
            ^ crc_tables[3][data[4]] ^ crc_tables[2][data[5]]
            ^ crc_tables[1][data[6]] ^ crc_tables[0][data[7]];
    }
    for (; length; data++, length--)
        crc = (crc >> 8) ^ crc_tables[0][(crc ^ *data) & 0xFF];
    return ~crc;
}

/* CRC of data[0..length); `CRC_ROOM` zero bytes lie before it, and its first bytes are changed. */
static uint32_t
crc_of(uint8_t *data, size_t length)
{
    size_t more = (0 - length) % 16;

    if (!crc_folds || length < 4)
        return crc_by_tables(data, length);
    /* The initial inversion goes into the text itself: zeros before it then change nothing. */
    for (int i = 0; i < 4; i++)
        data[i] ^= 0xFF;
    return ~crc_fold(data - more, length + more);
}

#endif
