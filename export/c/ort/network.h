/* Samples -> log-probabilities of letters, computed by ONNX Runtime: an example of its C API in place of our own
 * network.h, for boards where that library is installed. Everything around it, streamasr.c, stays as it is. */
#ifndef STREAMASR_NETWORK_H
#define STREAMASR_NETWORK_H

#include "model.h"
#include "onnxruntime_c_api.h"

#define NETWORK_STATES 32 /* at most */

struct network {
    OrtValue *state[NETWORK_STATES]; /* what the last step gave for the next one */
};

/* `network` is all zeros, or has been started before. The first call opens the graph, which all streams share: make it
 * before other threads do. It is the file named by the environment's STREAMASR_GRAPH, or int8.onnx, and must be of the
 * bundle that model.c was made from. Ends the program with one line where that is not possible. */
void network_start(struct network *network);

void network_stop(struct network *network);

/* MODEL_BLOCK samples in [-1, 1] -> log_probs (MODEL_FRAMES, MODEL_TOKENS). */
void network_step(struct network *network, const float *samples, float *log_probs);

#endif
