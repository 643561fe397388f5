/* The stages of the network, each over all frames of a block. Frames lie one after the other: (time, channels). */
#include "network.h"

#include <math.h>
#include <string.h>

/* joined = past, x; its last n_past values are the new past. */
static void join(float *joined, float *past, size_t n_past, const float *x, size_t n)
{
    memcpy(joined, past, n_past * sizeof *past);
    memcpy(joined + n_past, x, n * sizeof *x);
    memcpy(past, joined + n, n_past * sizeof *past);
}

/* As ONNX's QuantizeLinear: halves to even (the default rounding), the ends saturate. */
static void quantise(const struct affine *affine, const float *x, size_t n, uint8_t *y)
{
    const float low = (float)-affine->zero, high = (float)(255 - affine->zero);
    for (size_t i = 0; i < n; i++) {
        float steps = x[i] / affine->step;
        steps = steps < low ? low : steps > high ? high : steps;
        y[i] = (uint8_t)(lrintf(steps) + affine->zero);
    }
}

/* x: `frames` rows that begin `step` apart -> y (frames, outputs) */
static void multiply(struct network *network, const struct affine *affine, const uint8_t *x, size_t step,
                     size_t frames, float *y)
{
    network->products(affine, x, step, frames, network->sums);
    for (size_t t = 0, i = 0; t < frames; t++)
        for (size_t o = 0; o < affine->outputs; o++, i++)
            y[i] = (float)(network->sums[i] - affine->offset[o]) * affine->scale[o] + affine->bias[o];
}

/* In double precision: the result is rounded to 8 bits, so the fewer errors the fewer roundings differ. */
static void normalise(const struct norm *norm, const float *x, size_t width, float *y)
{
    double mean = 0.0, square = 0.0;
    for (size_t i = 0; i < width; i++) {
        mean += (double)x[i];
        square += (double)x[i] * (double)x[i];
    }
    mean /= (double)width;
    const double deviation = sqrt(square / (double)width - mean * mean + norm->epsilon);
    for (size_t i = 0; i < width; i++)
        y[i] = (float)(((double)x[i] - mean) / deviation * (double)norm->weight[i] + (double)norm->bias[i]);
}

static size_t front(struct network *network, const float *samples)
{
    const size_t n_past = MODEL_WINDOW - MODEL_HOP, frames = MODEL_BLOCK / MODEL_HOP;
    join(network->joined, network->state, n_past, samples, MODEL_BLOCK);
    for (size_t t = 0; t < frames; t++) {
        float *mels = network->x + t * MODEL_MELS;
        log_mel(network->joined + t * MODEL_HOP, mels, &network->spectrum);
        for (size_t m = 0; m < MODEL_MELS; m++)
            mels[m] = (mels[m] - model_mean[m]) * model_scale[m];
    }
    return frames;
}

static size_t conv_step(struct network *network, const struct conv *conv, float *past, size_t frames)
{
    const size_t n_past = (conv->kernel - conv->stride) * conv->inputs, n = frames * conv->inputs;
    const size_t outputs = conv->affine.outputs, y_frames = frames / conv->stride;
    join(network->joined, past, n_past, network->x, n);
    quantise(&conv->affine, network->joined, n_past + n, network->whole);
    /* The frames under the kernel lie side by side: each output reads one row of them. */
    multiply(network, &conv->affine, network->whole, conv->stride * conv->inputs, y_frames, network->x);
    for (size_t i = 0; i < y_frames * outputs; i++)
        if (network->x[i] < 0.0f)
            network->x[i] = 0.0f;
    return y_frames;
}

/* `input` and `hidden`: (3 width) for this frame -> h */
static void gru_gates(float *input, float *hidden, size_t width, float *h)
{
    const size_t gates = 2 * width;
    for (size_t i = 0; i < gates; i++)
        input[i] += hidden[i];
    sigmoid(input, gates); /* reset, update */
    for (size_t i = 0; i < width; i++)
        hidden[gates + i] = input[gates + i] + input[i] * hidden[gates + i];
    hyperbolic_tangent(hidden + gates, width);
    for (size_t i = 0; i < width; i++)
        h[i] = hidden[gates + i] + input[width + i] * (h[i] - hidden[gates + i]);
}

static size_t gru_step(struct network *network, const struct gru *gru, float *h, size_t frames)
{
    const size_t width = gru->hidden.inputs;
    for (size_t t = 0; t < frames; t++)
        normalise(&gru->norm, network->x + t * width, width, network->joined + t * width);
    quantise(&gru->input, network->joined, frames * width, network->whole);
    multiply(network, &gru->input, network->whole, width, frames, network->input);
    for (size_t t = 0; t < frames; t++) {
        quantise(&gru->hidden, h, width, network->whole);
        multiply(network, &gru->hidden, network->whole, width, 1, network->hidden);
        gru_gates(network->input + t * 3 * width, network->hidden, width, h);
        for (size_t i = 0; i < width; i++)
            network->x[t * width + i] += h[i];
    }
    return frames;
}

static size_t ahead_step(struct network *network, const struct ahead *ahead, float *past, size_t frames)
{
    const size_t n = frames * ahead->width;
    join(network->joined, past, ahead->frames * ahead->width, network->x, n);
    memset(network->x, 0, n * sizeof *network->x);
    for (size_t t = 0; t < frames; t++)
        for (size_t tap = 0; tap <= ahead->frames; tap++)
            for (size_t i = 0; i < ahead->width; i++)
                network->x[t * ahead->width + i] +=
                    network->joined[(t + tap) * ahead->width + i] * ahead->taps[tap * ahead->width + i];
    return frames;
}

static void log_softmax(float *x, size_t n)
{
    float highest = x[0], sum = 0.0f;
    for (size_t i = 1; i < n; i++)
        highest = x[i] > highest ? x[i] : highest;
    for (size_t i = 0; i < n; i++)
        sum += expf(x[i] - highest);
    const float log_sum = highest + logf(sum);
    for (size_t i = 0; i < n; i++)
        x[i] -= log_sum;
}

void network_start(struct network *network)
{
    memset(network, 0, sizeof *network);
    network->products = products_best();
}

void network_step(struct network *network, const float *samples, float *log_probs)
{
    const size_t width = model_head.inputs;
    size_t frames = front(network, samples);
    for (size_t i = 0; i < MODEL_STAGES; i++) {
        const struct stage *stage = &model_stages[i];
        float *state = network->state + stage->state;
        frames = stage->conv  ? conv_step(network, stage->conv, state, frames)
                 : stage->gru ? gru_step(network, stage->gru, state, frames)
                              : ahead_step(network, stage->ahead, state, frames);
    }
    for (size_t t = 0; t < frames; t++)
        normalise(&model_head_norm, network->x + t * width, width, network->joined + t * width);
    quantise(&model_head, network->joined, frames * width, network->whole);
    multiply(network, &model_head, network->whole, width, frames, log_probs);
    for (size_t t = 0; t < frames; t++)
        log_softmax(log_probs + t * MODEL_TOKENS, MODEL_TOKENS);
}
