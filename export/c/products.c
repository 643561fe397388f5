/* The integer products, where nearly all of the time goes. All ways to compute them give the same integers.
 *
 * There is no intrinsic code for ARM: compilers turn the plain loop into NEON where the processor has it.
 */
#include "network.h"

#ifdef PRODUCTS_AVX2
#include <immintrin.h>
#endif

static int32_t dot(const uint8_t *x, const int8_t *weight, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * weight[i];
    return sum;
}

void products_plain(const struct affine *affine, const uint8_t *x, size_t step, size_t frames, int32_t *sums)
{
    const size_t inputs = affine->inputs, outputs = affine->outputs;
    for (size_t o = 0; o < outputs; o++) /* each row of weights is read once for all frames */
        for (size_t t = 0; t < frames; t++)
            sums[t * outputs + o] = dot(x + t * step, affine->weight + o * inputs, inputs);
}

#ifdef PRODUCTS_AVX2
/* Pairs are summed in 16 bits that saturate: 2 * 255 * 63 fits, so they never do. */
__attribute__((target("avx2")))
static int32_t dot_avx2(const uint8_t *x, const int8_t *weight, size_t n)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(weight + i));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four) + dot(x + i, weight + i, n - i);
}

__attribute__((target("avx2")))
void products_avx2(const struct affine *affine, const uint8_t *x, size_t step, size_t frames, int32_t *sums)
{
    const size_t inputs = affine->inputs, outputs = affine->outputs;
    for (size_t o = 0; o < outputs; o++)
        for (size_t t = 0; t < frames; t++)
            sums[t * outputs + o] = dot_avx2(x + t * step, affine->weight + o * inputs, inputs);
}
#endif

products *products_best(void)
{
#ifdef PRODUCTS_AVX2
    if (__builtin_cpu_supports("avx2"))
        return products_avx2;
#endif
    return products_plain;
}
