/* What tests look at from inside: check WHAT [SEED], audio on standard input as 16-bit samples of this machine.
 *
 *   log_probs  MODEL_TOKENS floats for each frame, the zeros at the end included
 *   events     text of each partial (-) and final (=), fed block by block
 *   cuts SEED  finals (0, 1) of two streams that take turns at pieces of random sizes; the second hears the second
 *              half only; both hear it twice
 *   products   every way to compute the products gives the same integers; prints a hash of them
 *   pieces N   seconds of processor time that each piece of N samples costs, and then the end
 *   speed      seconds of each way to compute all products of one block
 *
 * Compiled with -DCOUNT_ALLOCATIONS and linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc, `cuts` shows
 * that only sasr_create takes memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "network.h"
#include "streamasr.h"

#define MOST (16000 * 120)

static unsigned long allocations;

#ifdef COUNT_ALLOCATIONS
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    (void)n, (void)size;
    abort();
}

void *__wrap_realloc(void *old, size_t size)
{
    (void)old, (void)size;
    abort();
}
#endif

static int16_t audio[MOST];
static size_t n_audio;

static uint32_t noise(uint32_t *seed) /* Marsaglia's xorshift */
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static void write_log_probs(void)
{
    static struct network network;
    static float block[MODEL_BLOCK], log_probs[MODEL_FRAMES * MODEL_TOKENS];
    network_start(&network);
    for (size_t start = 0; start + MODEL_BLOCK <= n_audio + MODEL_FLUSH; start += MODEL_BLOCK) {
        for (size_t i = 0; i < MODEL_BLOCK; i++)
            block[i] = start + i < n_audio ? (float)audio[start + i] / 32768.0f : 0.0f;
        network_step(&network, block, log_probs);
        fwrite(log_probs, sizeof log_probs, 1, stdout);
    }
}

static void write_words(const char *name, const sasr_utterance *said)
{
    printf("%s%s", name, said->text);
    for (size_t i = 0; i < said->n_words; i++)
        printf(" %ld-%ld(%.4f)", (long)said->words[i].start, (long)said->words[i].end, said->words[i].confidence);
    putchar('\n');
}

/* sasr_accept until nothing is left, with what it says */
static void hear(sasr_stream *stream, const int16_t *pcm, size_t n, const char *name)
{
    const sasr_utterance *said;
    do {
        const size_t taken = sasr_accept(stream, pcm, n);
        pcm += taken;
        n -= taken;
        if ((said = sasr_final(stream, 0)))
            write_words(name, said);
    } while (said);
    if (n)
        abort();
}

static void finish(sasr_stream *stream, const char *name)
{
    const sasr_utterance *said;
    while ((said = sasr_final(stream, 1)))
        write_words(name, said);
}

static void write_events(void)
{
    static char shown[MODEL_TEXT];
    sasr_stream *stream = sasr_create();
    for (size_t start = 0; start < n_audio; start += MODEL_BLOCK) {
        hear(stream, audio + start, n_audio - start < MODEL_BLOCK ? n_audio - start : MODEL_BLOCK, "=");
        if (strcmp(shown, sasr_partial(stream)))
            printf("-%s\n", strcpy(shown, sasr_partial(stream)));
    }
    finish(stream, "=");
    sasr_free(stream);
}

static void write_cuts(uint32_t seed)
{
    static const char *const names[2] = {"0", "1"};
    sasr_stream *streams[2] = {sasr_create(), sasr_create()};
    allocations = 0;
    for (int again = 0; again < 2; again++) {
        size_t next[2] = {0, n_audio / 2};
        while (next[0] < n_audio || next[1] < n_audio)
            for (int i = 0; i < 2; i++) {
                const uint32_t kind = noise(&seed) % 4, most = kind ? kind == 1 ? 20000 : 2000 : 3;
                const size_t left = n_audio - next[i], drawn = noise(&seed) % most, n = drawn < left ? drawn : left;
                hear(streams[i], audio + next[i], n, names[i]);
                next[i] += n;
            }
        for (int i = 0; i < 2; i++)
            finish(streams[i], names[i]);
    }
    if (allocations > 1) /* standard output may take its buffer */
        abort();
    sasr_free(streams[0]);
    sasr_free(streams[1]);
}

/* What each piece of so many samples and, last, the end cost, in seconds of processor time, a line each. */
static void write_pieces(size_t piece)
{
    sasr_stream *stream = sasr_create();
    for (size_t start = 0; start < n_audio; start += piece) {
        const clock_t began = clock();
        const int16_t *pcm = audio + start;
        size_t n = n_audio - start < piece ? n_audio - start : piece;
        do {
            const size_t taken = sasr_accept(stream, pcm, n);
            pcm += taken;
            n -= taken;
        } while (sasr_final(stream, 0));
        printf("%g\n", (double)(clock() - began) / CLOCKS_PER_SEC);
    }
    const clock_t began = clock();
    while (sasr_final(stream, 1))
        ;
    printf("%g\n", (double)(clock() - began) / CLOCKS_PER_SEC);
    sasr_free(stream);
}

static size_t all_affine(const struct affine **all)
{
    size_t n = 0;
    for (size_t i = 0; i < MODEL_STAGES; i++) {
        if (model_stages[i].conv)
            all[n++] = &model_stages[i].conv->affine;
        if (model_stages[i].gru) {
            all[n++] = &model_stages[i].gru->input;
            all[n++] = &model_stages[i].gru->hidden;
        }
    }
    all[n++] = &model_head;
    return n;
}

static void check_products(void)
{
    static uint8_t x[2 * MODEL_VALUES];
    static int32_t plain[MODEL_SUMS], best[MODEL_SUMS];
    const struct affine *all[2 * MODEL_STAGES + 1];
    uint32_t seed = 1, hash = 2166136261u; /* Fowler, Noll, Vo */
    const size_t n = all_affine(all);
    for (size_t round = 0; round < 20 * n; round++) {
        const struct affine *affine = all[round % n];
        const size_t frames = MODEL_SUMS / affine->outputs > 1 ? 2 : 1, step = affine->inputs - round % 3 * affine->inputs / 3;
        for (size_t i = 0; i < sizeof x; i++)
            x[i] = round < n ? 255 : (uint8_t)noise(&seed);
        products_plain(affine, x, step, frames, plain);
        products_best()(affine, x, step, frames, best);
        if (memcmp(plain, best, frames * affine->outputs * sizeof *best))
            abort();
        for (size_t i = 0; i < frames * affine->outputs; i++)
            hash = (hash ^ (uint32_t)plain[i]) * 16777619u;
    }
    printf("%08lx%s\n", (unsigned long)hash, products_best() == products_plain ? " plain only" : "");
}

static void write_speed(void)
{
    static uint8_t x[2 * MODEL_VALUES];
    static int32_t sums[MODEL_SUMS];
    products *const ways[2] = {products_plain, products_best()};
    const struct affine *all[2 * MODEL_STAGES + 1];
    const size_t n = all_affine(all);
    for (int way = 0; way < 2; way++) {
        const clock_t start = clock();
        for (int round = 0; round < 200; round++)
            for (size_t i = 0; i < n; i++)
                ways[way](all[i], x, all[i]->inputs, 1, sums);
        printf("%g\n", (double)(clock() - start) / CLOCKS_PER_SEC / 200);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "products"))
        check_products();
    else if (!strcmp(what, "speed"))
        write_speed();
    else {
        n_audio = fread(audio, sizeof *audio, MOST, stdin);
        if (getchar() != EOF) {
            fprintf(stderr, "check: got more than %d samples\n", MOST);
            return 1;
        }
        if (!strcmp(what, "log_probs"))
            write_log_probs();
        else if (!strcmp(what, "events"))
            write_events();
        else if (!strcmp(what, "cuts") && argc > 2)
            write_cuts((uint32_t)strtoul(argv[2], NULL, 10) * 2 + 1);
        else if (!strcmp(what, "pieces") && argc > 2)
            write_pieces(strtoul(argv[2], NULL, 10));
        else
            return 2;
    }
    return fflush(stdout) ? 1 : 0;
}
