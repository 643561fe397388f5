/* Blocks of samples -> utterances: greedy CTC (the best token of every frame, repeats merged, blanks dropped, a
 * space ends a word) and the rules for the end of an utterance. */
#include "streamasr.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

#define BLANK 0

/* What speaks for the last word; its last letter may still go on. */
struct evidence {
    int letters;
    double sum, lowest; /* log-probabilities of its letters but the last */
    double last;        /* of the last, in its best frame */
    double blank;       /* of the blank, summed from the first letter to the last, */
    double quiet;       /* and since */
};

struct sasr_stream {
    struct network network;
    float pending[MODEL_BLOCK]; /* samples that wait for a block to be full */
    size_t n_pending;
    int64_t blocks;
    float log_probs[MODEL_FRAMES * MODEL_TOKENS]; /* of the last block */
    size_t row;                                   /* the first of its frames that has not been decoded */
    int64_t stop;                                 /* frames from here on lie past the end of the audio */
    int closing;                                  /* the audio is over, after */
    int64_t total;                                /* samples; */
    size_t zeros;                                 /* so many zeros are still to follow */

    int best;             /* token of the last frame */
    int64_t letter_frame; /* of the last letter */
    int open_word;        /* the next letter belongs to the last word */
    struct evidence evidence;
    int spoken; /* somebody did speak, say the words but the last */
    char text[MODEL_TEXT];
    size_t n_text;
    sasr_word words[MODEL_WORDS]; /* while the utterance goes on, start and end are frames of letters */
    size_t n_words;
    int64_t said_until; /* end of the last utterance, in samples */
    int ended;          /* words and text are an utterance that is over */
    int waiting;        /* which nobody has asked for */
    sasr_utterance utterance;
};

const long sasr_sample_rate = MODEL_SAMPLE_RATE;

static void next_utterance(sasr_stream *stream)
{
    stream->n_words = stream->n_text = 0;
    stream->text[0] = '\0';
    stream->open_word = stream->spoken = stream->ended = stream->waiting = 0;
}

static void start(sasr_stream *stream)
{
    network_start(&stream->network);
    stream->n_pending = 0;
    stream->blocks = stream->letter_frame = stream->said_until = 0;
    stream->row = MODEL_FRAMES;
    stream->stop = INT64_MAX;
    stream->zeros = MODEL_FLUSH;
    stream->closing = 0;
    stream->best = BLANK;
    stream->evidence = (struct evidence){0};
    next_utterance(stream);
}

/* Logistic regression over the evidence, as the bundle's ConfidenceModel. */
static double confidence(const struct evidence *evidence)
{
    const double mean = (evidence->sum + evidence->last) / evidence->letters;
    const double lowest = evidence->last < evidence->lowest ? evidence->last : evidence->lowest;
    const double letters = evidence->letters < 8 ? evidence->letters : 8;
    const double logit = model_confidence.bias + model_confidence.mean_log_prob * mean
                         + model_confidence.min_log_prob * lowest + model_confidence.tokens * letters;
    return 1.0 / (1.0 + exp(-(logit < -30.0 ? -30.0 : logit > 30.0 ? 30.0 : logit)));
}

/* The last word has ended. */
static void end_word(sasr_stream *stream)
{
    sasr_word *word = &stream->words[stream->n_words - 1];
    const double frames = (double)(word->end - word->start + 1);
    word->confidence = confidence(&stream->evidence);
    stream->spoken |= stream->evidence.blank / frames <= model_silence;
}

/* Cannot overflow: each frame gives one letter or one space at most, and a rule ends every utterance. */
static void append(sasr_stream *stream, const char *text)
{
    const size_t length = strlen(text);
    assert(stream->n_text + length < sizeof stream->text);
    memcpy(stream->text + stream->n_text, text, length + 1);
    stream->n_text += length;
}

static void new_word(sasr_stream *stream, int64_t frame)
{
    if (stream->n_words) {
        end_word(stream);
        append(stream, " ");
    }
    assert(stream->n_words < MODEL_WORDS);
    sasr_word *word = &stream->words[stream->n_words++];
    word->text = stream->text + stream->n_text;
    word->length = 0;
    word->start = frame;
    stream->evidence = (struct evidence){0, 0.0, INFINITY, 0.0, 0.0, 0.0};
    stream->open_word = 1;
}

static void new_letter(sasr_stream *stream, int token, int64_t frame, double log_prob)
{
    struct evidence *evidence = &stream->evidence;
    if (!stream->open_word)
        new_word(stream, frame);
    else {
        evidence->sum += evidence->last;
        evidence->lowest = evidence->last < evidence->lowest ? evidence->last : evidence->lowest;
    }
    evidence->letters++;
    evidence->last = log_prob;
    append(stream, model_tokens[token]);
    sasr_word *word = &stream->words[stream->n_words - 1];
    word->length += strlen(model_tokens[token]);
    word->end = frame;
}

/* One frame of log-probabilities (MODEL_TOKENS). */
static void decode(sasr_stream *stream, const float *log_probs, int64_t frame)
{
    const int last = stream->best;
    int best = 0;
    for (int i = 1; i < MODEL_TOKENS; i++)
        if (log_probs[i] > log_probs[best])
            best = i;
    stream->best = best;
    if (best == BLANK || best == MODEL_SPACE) {
        stream->evidence.quiet += log_probs[BLANK];
        stream->open_word &= best == BLANK;
        return;
    }
    stream->letter_frame = frame;
    if (best != last)
        new_letter(stream, best, frame, log_probs[best]);
    else if (stream->n_words) { /* else it belongs to the utterance before */
        stream->words[stream->n_words - 1].end = frame;
        if (log_probs[best] > stream->evidence.last)
            stream->evidence.last = log_probs[best];
    }
    stream->evidence.blank += stream->evidence.quiet + log_probs[BLANK];
    stream->evidence.quiet = 0.0;
}

/* True when any rule holds after this frame. */
static int is_endpoint(const sasr_stream *stream, int64_t frame)
{
    if (!stream->n_words)
        return 0;
    for (size_t i = 0; i < MODEL_RULES; i++)
        if (frame - stream->letter_frame >= model_rules[i].quiet
            && frame - stream->words[0].start >= model_rules[i].frames)
            return 1;
    return 0;
}

static int64_t within(int64_t sample, int64_t low, int64_t high)
{
    sample = sample > low ? sample : low;
    return sample < high ? sample : high;
}

/* Frames of letters -> samples: moved by the model's measured delay, apart, in order, in [said_until, end]. */
static void set_times(sasr_stream *stream, int64_t end)
{
    sasr_word *words = stream->words;
    for (size_t i = 0; i < stream->n_words; i++) {
        words[i].start = words[i].start * MODEL_STRIDE + MODEL_TIMING_START;
        words[i].end = (words[i].end + 1) * MODEL_STRIDE + MODEL_TIMING_END;
    }
    for (size_t i = 0; i + 1 < stream->n_words; i++)
        if (words[i].end > words[i + 1].start)
            words[i].end = words[i + 1].start = (words[i].end + words[i + 1].start) / 2;
    int64_t low = stream->said_until;
    for (size_t i = 0; i < stream->n_words; i++) {
        words[i].start = within(words[i].start, low, end);
        low = words[i].end = within(words[i].end, words[i].start, end);
    }
}

/* `end` in samples. True if it was an utterance, false if there was none or it was noise: no word to believe in. */
static int end_utterance(sasr_stream *stream, int64_t end)
{
    const size_t n = stream->n_words;
    if (n)
        end_word(stream);
    if (!n || !stream->spoken) {
        next_utterance(stream);
        return 0;
    }
    set_times(stream, end);
    stream->said_until = stream->words[n - 1].end;
    stream->utterance = (sasr_utterance){stream->text, stream->words, n};
    stream->ended = stream->waiting = 1;
    return 1;
}

/* The frames of the last block that are left; true when an utterance ended. */
static int decode_rows(sasr_stream *stream)
{
    while (stream->row < MODEL_FRAMES) {
        const float *log_probs = stream->log_probs + stream->row * MODEL_TOKENS;
        int64_t frame = (stream->blocks - 1) * MODEL_FRAMES + (int64_t)stream->row - MODEL_DELAY;
        stream->row++;
        if (frame < 0 || frame >= stream->stop)
            continue;
        decode(stream, log_probs, frame);
        if (is_endpoint(stream, frame) && end_utterance(stream, (frame + 1) * MODEL_STRIDE))
            return 1;
    }
    return 0;
}

/* As sasr_accept; pcm NULL: zeros. */
static size_t feed(sasr_stream *stream, const int16_t *pcm, size_t n)
{
    size_t taken = 0;
    if (stream->ended)
        next_utterance(stream);
    while (!decode_rows(stream) && taken < n) {
        for (; taken < n && stream->n_pending < MODEL_BLOCK; taken++)
            stream->pending[stream->n_pending++] = pcm ? (float)pcm[taken] / 32768.0f : 0.0f;
        if (stream->n_pending == MODEL_BLOCK) {
            network_step(&stream->network, stream->pending, stream->log_probs);
            stream->n_pending = stream->row = 0;
            stream->blocks++;
        }
    }
    return taken;
}

sasr_stream *sasr_create(void)
{
    sasr_stream *stream = malloc(sizeof *stream);
    if (stream) {
        memset(&stream->network, 0, sizeof stream->network);
        start(stream);
    }
    return stream;
}

size_t sasr_accept(sasr_stream *stream, const int16_t *pcm, size_t n)
{
    return stream->closing ? n : feed(stream, pcm, n);
}

const char *sasr_partial(const sasr_stream *stream)
{
    return stream->ended ? "" : stream->text;
}

/* One step towards the end of the audio: an utterance that waits, or the stream as new. */
static void finish(sasr_stream *stream)
{
    if (!stream->closing) {
        stream->closing = 1;
        stream->total = stream->blocks * MODEL_BLOCK + (int64_t)stream->n_pending;
        stream->stop = (stream->total + MODEL_STRIDE - 1) / MODEL_STRIDE; /* frames that begin before the end */
    }
    stream->zeros -= feed(stream, NULL, stream->zeros);
    if (!stream->ended && !end_utterance(stream, stream->total))
        start(stream);
}

const sasr_utterance *sasr_final(sasr_stream *stream, int end)
{
    if (end && !stream->waiting)
        finish(stream);
    if (!stream->waiting)
        return NULL;
    stream->waiting = 0;
    return &stream->utterance;
}

void sasr_free(sasr_stream *stream)
{
    if (stream)
        network_stop(&stream->network);
    free(stream);
}
