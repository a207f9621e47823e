/* y = act(W norm(x)) + add for a few rows x: weights of 8 bits are read once, as they lie in memory.
 *
 * A row of x is rounded to 16 bits, with a step of its own, which keeps more of it than bf16 does;
 * the sums of its products with weights are whole numbers and exact. Compiled by kernel.py.
 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WIDE 64 /* channels in a turn; a row of codes is padded with zeros to a multiple of it */

/* The sum of w[i] * x[i]; no sum of 32 bits overflows for at most 16,384 channels. */
static inline float dot(const int8_t *w, const int16_t *x, long channels) {
    __m512i a = _mm512_setzero_si512(), b = a;
    long i = 0;
    for (; i + WIDE <= channels; i += WIDE) {
        _mm_prefetch((const char *)(w + i + 2048), _MM_HINT_T0);
        a = _mm512_dpwssd_epi32(a, _mm512_load_si512(x + i),
                                _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(w + i))));
        b = _mm512_dpwssd_epi32(b, _mm512_load_si512(x + i + 32),
                                _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(w + i + 32))));
    }
    if (i < channels) {
        __m512i rest = _mm512_maskz_loadu_epi8(~0ULL >> (WIDE - (channels - i)), w + i);
        a = _mm512_dpwssd_epi32(a, _mm512_load_si512(x + i),
                                _mm512_cvtepi8_epi16(_mm512_castsi512_si256(rest)));
        b = _mm512_dpwssd_epi32(b, _mm512_load_si512(x + i + 32),
                                _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(rest, 1)));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_cvtepi32_ps(a), _mm512_cvtepi32_ps(b)));
}

/* Codes of a row, and the factor that they have lost: their step, and that of RMSNorm where there is
 * a gain. NaN where the row is damaged. */
static float encode(const float *x, const float *gain, float eps, long channels, int16_t *codes) {
    float squares = 0, most;
    int32_t largest = 0; /* without the sign, floats are in the order of their bits, NaN last */
    for (long i = 0; i < channels; i++) {
        float value = gain ? x[i] * gain[i] : x[i];
        int32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
        squares += x[i] * x[i];
    }
    memcpy(&most, &largest, sizeof most);
    if (largest >= 0x7f800000) return NAN;
    float inverse = most > 1e-30f ? 32767 / most : 0;
    for (long i = 0; i < channels; i++)
        codes[i] = (int16_t)rintf((gain ? x[i] * gain[i] : x[i]) * inverse);
    return gain ? most / 32767 / sqrtf(squares / channels + eps) : most / 32767;
}

/* x (rows, channels); w (out, channels), or (2 out, channels) where the first half gates the second
 * by SiLU; y and add (rows, out). gain and add may be NULL. 0 where there was no memory, else 1. */
int product(const float *x, const float *gain, float eps, const int8_t *w, const float *scale,
             const float *add, float *y, long rows, long channels, long out, int gated,
             int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        long padded = (channels + WIDE - 1) / WIDE * WIDE;
        /* Each thread makes the codes for itself: that is done sooner than one waits for another. */
        int16_t *codes = aligned_alloc(64, rows * padded * sizeof(int16_t));
        float *factor = malloc(rows * sizeof(float));
        int here = codes && factor;
        if (!here) {
#pragma omp atomic write
            failed = 1;
        }
        for (long row = 0; here && row < rows; row++) {
            int16_t *own = codes + row * padded;
            for (long i = channels; i < padded; i++) own[i] = 0;
            factor[row] = encode(x + row * channels, gain, eps, channels, own);
        }
#pragma omp for schedule(static)
        for (long i = 0; i < out; i++)
            for (long row = 0; here && row < rows; row++) {
                const int16_t *own = codes + row * padded;
                float value = dot(w + i * channels, own, channels) * factor[row] * scale[i];
                if (gated) {
                    long up = out + i;
                    value = value / (1 + expf(-value)) *
                            (dot(w + up * channels, own, channels) * factor[row] * scale[up]);
                }
                y[row * out + i] = add ? value + add[row * out + i] : value;
            }
        free(codes);
        free(factor);
    }
    return !failed;
}
