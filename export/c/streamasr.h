/* A streaming speech recogniser: PCM in, words out.
 *
 *     sasr_stream *stream = sasr_create();
 *     const sasr_utterance *said;
 *     while ((n = read_some(pcm)) > 0) {
 *         const int16_t *next = pcm;
 *         do {                                   // once, and once more after each utterance that ends
 *             taken = sasr_accept(stream, next, n);
 *             next += taken, n -= taken;
 *             if ((said = sasr_final(stream, 0)))
 *                 puts(said->text);
 *         } while (said);
 *     }
 *     while ((said = sasr_final(stream, 1)))     // the end: the last words
 *         puts(said->text);
 *     sasr_free(stream);
 *
 * Results do not depend on how the audio was cut into pieces. All memory is taken by sasr_create. There is no
 * global state: any number of streams share the constant weights, each used by one thread at a time.
 */
#ifndef STREAMASR_H
#define STREAMASR_H

#include <stddef.h>
#include <stdint.h>

/* Samples a second of the audio that sasr_accept takes, and of every time. */
extern const long sasr_sample_rate;

typedef struct sasr_stream sasr_stream;

/* `text` lies in the utterance's text and is not terminated. Times count samples from the start of the stream. */
typedef struct {
    const char *text;
    size_t length;     /* of text, in bytes */
    int64_t start, end;
    double confidence; /* estimated probability that the word is right */
} sasr_word;

/* Valid until the next call of sasr_accept or sasr_final with this stream. */
typedef struct {
    const char *text;  /* the words with a space between them, UTF-8 */
    const sasr_word *words;
    size_t n_words;    /* at least 1 */
} sasr_utterance;

/* A new stream; NULL where there is no memory for it. */
sasr_stream *sasr_create(void);

/* Hear up to n samples of one channel; returns how many were taken. Fewer than n only when an utterance ended:
 * ask sasr_final, then give the rest. Samples given after the audio was ended are taken and ignored. */
size_t sasr_accept(sasr_stream *stream, const int16_t *pcm, size_t n);

/* What the utterance that is going on sounds like so far; may still change. "" while there is none.
 * Valid until the next call of sasr_accept or sasr_final with this stream. */
const char *sasr_partial(const sasr_stream *stream);

/* The utterance that ended during the last sasr_accept, once; NULL if none did.
 * end: not 0 when no audio will follow. Call it so until it returns NULL: there may be several last utterances.
 * When it has returned NULL the stream is as new, ready for other audio. */
const sasr_utterance *sasr_final(sasr_stream *stream, int end);

/* NULL is allowed. */
void sasr_free(sasr_stream *stream);

#endif
