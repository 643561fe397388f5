/* The squashing functions of a GRU, as quotients of polynomials: those of Eigen and ONNX Runtime, in the same order
 * and rounded alike. What they give is rounded to 8 bits, where a difference in the last bit of a float may become
 * one of a whole step; so everybody had better compute the same. They also take no time, unlike expf and tanhf. */
#include <math.h>

#include "network.h"

/* a b + c rounded once. In double precision the product is exact, and a second rounding all but never shows. */
static inline float fused(float a, float b, float c)
{
#ifdef FP_FAST_FMAF
    return fmaf(a, b, c);
#else
    return (float)((double)a * (double)b + (double)c);
#endif
}

static inline float clamp(float x, float limit)
{
    x = x < -limit ? -limit : x;
    return x > limit ? limit : x;
}

void sigmoid(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float v = clamp(x[i], 18.0f), square = v * v;
        float p = fused(square, 4.37031012579801e-11f, 1.15627324459942e-07f);
        p = fused(p, square, 6.08574864600143e-05f);
        p = fused(p, square, 8.51377133304701e-03f);
        p = fused(p, square, 2.48287947061529e-01f);
        float q = fused(square, 6.10247389755681e-13f, 5.76102136993427e-09f);
        q = fused(q, square, 6.29106785017040e-06f);
        q = fused(q, square, 1.70198817374094e-03f);
        q = fused(q, square, 1.16817656904453e-01f);
        q = fused(q, square, 9.93151921023180e-01f);
        x[i] = p * v / q + 0.5f;
    }
}

void hyperbolic_tangent(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float v = clamp(x[i], 9.0f), square = v * v;
        float p = fused(square, -2.76076847742355e-16f, 2.00018790482477e-13f);
        p = fused(p, square, -8.60467152213735e-11f);
        p = fused(p, square, 5.12229709037114e-08f);
        p = fused(p, square, 1.48572235717979e-05f);
        p = fused(p, square, 6.37261928875436e-04f);
        p = fused(p, square, 4.89352455891786e-03f);
        float q = fused(square, 1.19825839466702e-06f, 1.18534705686654e-04f);
        q = fused(q, square, 2.26843463243900e-03f);
        q = fused(q, square, 4.89352518554385e-03f);
        x[i] = p * v / q;
    }
}
