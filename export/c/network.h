/* Samples -> log-probabilities of letters. */
#ifndef STREAMASR_NETWORK_H
#define STREAMASR_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"

/* sums (frames, outputs) = x weight^T, x being `frames` rows of 8-bit inputs that begin `step` apart. */
typedef void products(const struct affine *affine, const uint8_t *x, size_t step, size_t frames, int32_t *sums);

products products_plain;
#if defined(__GNUC__) && defined(__x86_64__)
#define PRODUCTS_AVX2
products products_avx2;
#endif

/* The fastest that this processor can run. */
products *products_best(void);

struct spectrum {
    double real[MODEL_N_FFT], imaginary[MODEL_N_FFT];
    double power[MODEL_N_FFT / 2 + 1];
};

/* MODEL_WINDOW samples in [-1, 1] -> MODEL_MELS logarithms of power; `work` is overwritten. */
void log_mel(const float *samples, float *mels, struct spectrum *work);

/* In place, n values. */
void sigmoid(float *x, size_t n);
void hyperbolic_tangent(float *x, size_t n);

/* Everything that one stream's network needs: its state, and room to work in. */
struct network {
    float state[MODEL_STATE]; /* in the order of the bundle's states */
    products *products;
    struct spectrum spectrum;
    float x[MODEL_VALUES];     /* the frames that go from stage to stage */
    float joined[MODEL_VALUES];
    uint8_t whole[MODEL_VALUES];
    int32_t sums[MODEL_SUMS];
    float input[MODEL_SUMS], hidden[MODEL_SUMS];
};

void network_start(struct network *network);

/* Nothing to give back: all memory is the stream's. */
#define network_stop(network) ((void)(network))

/* MODEL_BLOCK samples in [-1, 1] -> log_probs (MODEL_FRAMES, MODEL_TOKENS). */
void network_step(struct network *network, const float *samples, float *log_probs);

#endif
