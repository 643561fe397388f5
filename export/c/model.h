/* What the tables of the model are: model.c has them and sizes.h their sizes, both written by `python -m export.c`. */
#ifndef STREAMASR_MODEL_H
#define STREAMASR_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "sizes.h"

/* y = weight (x - input), 8-bit integers in, 32-bit integers summed, then scaled to float. */
struct affine {
    size_t inputs, outputs;
    const int8_t *weight;  /* (outputs, inputs), within +-63 */
    const int32_t *offset; /* (outputs): zero times the sum of the row's weights */
    const float *scale;    /* (outputs) */
    const float *bias;     /* (outputs) */
    float step;            /* input: real = (integer - zero) step */
    int zero;
};

struct norm {
    const float *weight, *bias;
    double epsilon;
};

/* A convolution along time and a ReLU. */
struct conv {
    size_t inputs, kernel, stride; /* channels, frames, frames */
    struct affine affine;          /* of kernel x inputs values */
};

/* x + gru(norm(x)) */
struct gru {
    struct norm norm;
    struct affine input, hidden; /* outputs: reset gate, update gate, new state */
};

/* y[t] = sum over i of taps[i] x[t + i] */
struct ahead {
    size_t width, frames;
    const float *taps; /* (frames + 1, width) */
};

/* One layer: whichever of the three is not NULL, and where its state begins. */
struct stage {
    const struct conv *conv;
    const struct gru *gru;
    const struct ahead *ahead;
    size_t state;
};

/* One mel filter: weights of `bins` bins of the spectrum from `first` on. */
struct mel {
    size_t first, bins;
    const double *weight;
};

extern const double model_window[MODEL_WINDOW];
extern const double model_cosine[MODEL_N_FFT], model_sine[MODEL_N_FFT]; /* of 2 pi i / n_fft */
extern const struct mel model_mels[MODEL_MELS];
extern const double model_floor; /* added to the power of each mel band */
extern const float model_mean[MODEL_MELS], model_scale[MODEL_MELS];
extern const struct stage model_stages[MODEL_STAGES];
extern const struct norm model_head_norm;
extern const struct affine model_head;

/* An utterance with words ends when both hold, in frames. */
struct rule {
    int64_t quiet;  /* no new letter for so long */
    int64_t frames; /* first letter at least so long ago */
};

/* Weights of the evidence for a word, natural logarithms. */
struct confidence {
    double bias, mean_log_prob, min_log_prob;
    double tokens; /* per letter, at most 8 counted */
};

extern const char *const model_tokens[MODEL_TOKENS]; /* the blank first */
extern const struct rule model_rules[MODEL_RULES];
extern const struct confidence model_confidence;
extern const double model_silence; /* noise is what has the blank's mean log-probability above this in each word */

#endif
