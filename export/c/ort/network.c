/* The graph takes audio and one tensor for each part of its state; it gives log_probs and, named "new." and the
 * part's name, the state for the next step. Names and shapes are asked of the graph itself. */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME 128     /* bytes of a name, at most */
#define DIMENSIONS 8 /* of a tensor, at most */

/* Shared by all streams. */
static struct {
    const OrtApi *api;
    OrtSession *session;
    OrtMemoryInfo *memory;
    size_t states;
    char names[NETWORK_STATES][NAME], new_names[NETWORK_STATES][NAME + 4];
    int64_t shapes[NETWORK_STATES][DIMENSIONS];
    size_t dimensions[NETWORK_STATES];
} graph;

static void check(OrtStatus *status)
{
    if (!status)
        return;
    fprintf(stderr, "streamasr: ONNX Runtime: %s\n", graph.api->GetErrorMessage(status));
    exit(1);
}

/* A tensor of zeros of its own. */
static OrtValue *zeros(const int64_t *shape, size_t dimensions)
{
    OrtAllocator *allocator;
    OrtValue *value;
    void *data;
    size_t n = 1;
    for (size_t i = 0; i < dimensions; i++)
        n *= (size_t)shape[i];
    check(graph.api->GetAllocatorWithDefaultOptions(&allocator));
    check(graph.api->CreateTensorAsOrtValue(allocator, shape, dimensions, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    check(graph.api->GetTensorMutableData(value, &data));
    memset(data, 0, n * sizeof(float));
    return value;
}

/* Name and shape of one input; the batch axis, which is free, becomes 1. */
static void ask(size_t input, char *name, int64_t *shape, size_t *dimensions)
{
    OrtAllocator *allocator;
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *tensor;
    char *found;
    check(graph.api->GetAllocatorWithDefaultOptions(&allocator));
    check(graph.api->SessionGetInputName(graph.session, input, allocator, &found));
    snprintf(name, NAME, "%s", found);
    check(graph.api->AllocatorFree(allocator, found));
    check(graph.api->SessionGetInputTypeInfo(graph.session, input, &type));
    check(graph.api->CastTypeInfoToTensorInfo(type, &tensor));
    check(graph.api->GetDimensionsCount(tensor, dimensions));
    if (*dimensions > DIMENSIONS) {
        fprintf(stderr, "streamasr: %s: a state of more than %d dimensions\n", name, DIMENSIONS);
        exit(1);
    }
    check(graph.api->GetDimensions(tensor, shape, *dimensions));
    graph.api->ReleaseTypeInfo(type);
    shape[0] = 1;
}

static void open_graph(void)
{
    const char *named = getenv("STREAMASR_GRAPH"), *path = named ? named : "int8.onnx";
    FILE *file = fopen(path, "rb");
    OrtEnv *environment;
    OrtSessionOptions *options;
    size_t inputs;
    if (!(graph.api = OrtGetApiBase()->GetApi(ORT_API_VERSION))) {
        fprintf(stderr, "streamasr: the ONNX Runtime here is %s, older than the header that this was built with\n",
                OrtGetApiBase()->GetVersionString());
        exit(1);
    }
    check(graph.api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "streamasr", &environment));
    check(graph.api->CreateSessionOptions(&options));
    check(graph.api->SetIntraOpNumThreads(options, 1));
    if (!named && !file) {
        fprintf(stderr, "streamasr: no %s here; name the bundle's graph in STREAMASR_GRAPH\n", path);
        exit(1);
    }
    if (file)
        fclose(file);
    check(graph.api->CreateSession(environment, path, options, &graph.session));
    check(graph.api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &graph.memory));
    check(graph.api->SessionGetInputCount(graph.session, &inputs));
    for (size_t i = 0; i < inputs; i++) {
        const size_t n = graph.states;
        if (n == NETWORK_STATES) {
            fprintf(stderr, "streamasr: %s: more than %d tensors of state\n", path, NETWORK_STATES);
            exit(1);
        }
        ask(i, graph.names[n], graph.shapes[n], &graph.dimensions[n]);
        if (strcmp(graph.names[n], "audio")) {
            memcpy(graph.new_names[n], "new.", 4);
            memcpy(graph.new_names[n] + 4, graph.names[n], NAME);
            graph.states++;
        } else if (graph.shapes[n][1] != MODEL_BLOCK) {
            fprintf(stderr, "streamasr: %s: a block of %lld samples, expected %d; take the bundle's own graph\n", path,
                    (long long)graph.shapes[n][1], MODEL_BLOCK);
            exit(1);
        }
    }
}

void network_start(struct network *network)
{
    if (!graph.session)
        open_graph();
    network_stop(network);
    for (size_t i = 0; i < graph.states; i++)
        network->state[i] = zeros(graph.shapes[i], graph.dimensions[i]);
}

void network_stop(struct network *network)
{
    for (size_t i = 0; i < graph.states; i++)
        if (network->state[i])
            graph.api->ReleaseValue(network->state[i]);
    memset(network, 0, sizeof *network);
}

void network_step(struct network *network, const float *samples, float *log_probs)
{
    const int64_t shape[] = {1, MODEL_BLOCK};
    const char *input_names[NETWORK_STATES + 1] = {"audio"}, *output_names[NETWORK_STATES + 1] = {"log_probs"};
    const OrtValue *inputs[NETWORK_STATES + 1];
    OrtValue *outputs[NETWORK_STATES + 1] = {NULL}, *audio;
    OrtTensorTypeAndShapeInfo *made;
    size_t values;
    void *found;
    check(graph.api->CreateTensorWithDataAsOrtValue(graph.memory, (void *)samples, MODEL_BLOCK * sizeof *samples, shape,
                                                    2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &audio));
    inputs[0] = audio;
    for (size_t i = 0; i < graph.states; i++) {
        input_names[i + 1] = graph.names[i];
        output_names[i + 1] = graph.new_names[i];
        inputs[i + 1] = network->state[i];
    }
    check(graph.api->Run(graph.session, NULL, input_names, inputs, graph.states + 1, output_names, graph.states + 1,
                         outputs));
    check(graph.api->GetTensorTypeAndShape(outputs[0], &made));
    check(graph.api->GetTensorShapeElementCount(made, &values));
    graph.api->ReleaseTensorTypeAndShapeInfo(made);
    if (values != MODEL_FRAMES * MODEL_OUTPUTS) {
        fprintf(stderr, "streamasr: a graph with %lu outputs a block, expected %d; take the bundle's own graph\n",
                (unsigned long)values, MODEL_FRAMES * MODEL_OUTPUTS);
        exit(1);
    }
    check(graph.api->GetTensorMutableData(outputs[0], &found));
    for (size_t t = 0; t < MODEL_FRAMES; t++)
        memcpy(log_probs + t * MODEL_TOKENS, (float *)found + t * MODEL_OUTPUTS + MODEL_HEAD,
               MODEL_TOKENS * sizeof(float));
    graph.api->ReleaseValue(audio);
    graph.api->ReleaseValue(outputs[0]);
    for (size_t i = 0; i < graph.states; i++) {
        graph.api->ReleaseValue(network->state[i]);
        network->state[i] = outputs[i + 1];
    }
}
