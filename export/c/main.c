/* 16-bit PCM or WAV on standard input -> text on standard output, as it comes. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "streamasr.h"

#define PIECE 1280 /* samples read at once */

static const char HELP[] =
    "usage: streamasr [-t] [-p] < AUDIO\n"
    "Reads 16-bit little-endian PCM of one channel, or a WAV file of it, and writes one line an utterance.\n"
    "  -t      one line a word: start and end in seconds, confidence, word; an empty line after an utterance\n"
    "  -p      show what is being said on standard error, while it is said\n"
    "  --help  this\n"
    "From a microphone: arecord -q -f S16_LE -r %ld -c 1 -t raw | streamasr\n";

struct options {
    int times, partials;
};

static volatile sig_atomic_t stopped;

/* Ctrl-C: what has been said so far is written; a second one ends the program at once. */
static void stop(int number)
{
    signal(number, SIG_DFL);
    stopped = 1;
}

static void fail(const char *message)
{
    fprintf(stderr, "streamasr: %s\n", message);
    exit(1);
}

static struct options parse(int argc, char **argv)
{
    struct options options = {0, 0};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-t"))
            options.times = 1;
        else if (!strcmp(argv[i], "-p"))
            options.partials = 1;
        else if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
            printf(HELP, sasr_sample_rate);
            exit(0);
        } else {
            fprintf(stderr, "streamasr: %s '%s'; see streamasr --help\n",
                    *argv[i] == '-' ? "unknown option" : "audio comes on standard input (streamasr < AUDIO), got", argv[i]);
            exit(2);
        }
    return options;
}

static unsigned long little_endian(const unsigned char *bytes, int n)
{
    unsigned long value = 0;
    while (n--)
        value = value << 8 | bytes[n];
    return value;
}

static void check_format(const unsigned char *format)
{
    char message[160];
    const unsigned long coding = little_endian(format, 2), channels = little_endian(format + 2, 2);
    const unsigned long rate = little_endian(format + 4, 4), bits = little_endian(format + 14, 2);
    if ((coding == 1 || coding == 0xfffe) && channels == 1 && rate == (unsigned long)sasr_sample_rate && bits == 16)
        return;
    snprintf(message, sizeof message,
             "got a WAV of coding %lu, %lu channels, %lu Hz, %lu bits; expected 1 (PCM), 1, %ld, 16: convert it first",
             coding, channels, rate, bits, sasr_sample_rate);
    fail(message);
}

static void skip(uint64_t n)
{
    while (n-- && getchar() != EOF)
        ;
}

/* Behind "RIFF....WAVE": the other chunks up to the samples; their length in bytes. */
static unsigned long read_header(void)
{
    unsigned char chunk[8], format[16];
    int known = 0;
    while (fread(chunk, 1, 8, stdin) == 8) {
        const unsigned long size = little_endian(chunk + 4, 4);
        if (!memcmp(chunk, "data", 4)) {
            if (!known)
                fail("a WAV whose samples come before their format; convert it first");
            return size;
        }
        if (!memcmp(chunk, "fmt ", 4)) {
            if (size < 16 || fread(format, 1, 16, stdin) != 16)
                fail("a WAV whose format is cut short; copy it again");
            check_format(format);
            known = 1;
            skip((uint64_t)size - 16 + size % 2);
        } else
            skip((uint64_t)size + size % 2);
    }
    fail("a WAV without samples; copy it again");
    return 0;
}

/* What other formats begin with, which heard as samples would give words that nobody said. */
static void refuse_others(const unsigned char *bytes)
{
    static const char *const others[] = {"fLaC", "OggS", "ID3", "RF64", "RIFX", "FORM"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!memcmp(bytes, others[i], strlen(others[i]))) {
            fprintf(stderr, "streamasr: got a file that begins with '%s'; expected 16-bit PCM or WAV: convert it first\n",
                    others[i]);
            exit(1);
        }
}

/* In place of what was shown last. */
static void show(const char *text, struct options options)
{
    static int shown;
    if (options.partials && (*text || shown))
        fprintf(stderr, "\r\033[K%s", text);
    shown = *text != '\0';
}

static void write_utterance(const sasr_utterance *said, struct options options)
{
    show("", options);
    if (!options.times)
        puts(said->text);
    else {
        for (size_t i = 0; i < said->n_words; i++) {
            const sasr_word *word = &said->words[i];
            printf("%.3f %.3f %.3f %.*s\n", (double)word->start / (double)sasr_sample_rate,
                   (double)word->end / (double)sasr_sample_rate, word->confidence, (int)word->length, word->text);
        }
        putchar('\n');
    }
    if (fflush(stdout) == EOF || ferror(stdout)) {
        fprintf(stderr, "streamasr: cannot write: %s\n", strerror(errno));
        exit(1);
    }
}

static void hear(sasr_stream *stream, const unsigned char *bytes, size_t n, struct options options)
{
    int16_t pcm[PIECE];
    const int16_t *next = pcm;
    const sasr_utterance *said;
    for (size_t i = 0; i < n; i++) {
        const long value = (long)little_endian(bytes + 2 * i, 2);
        pcm[i] = (int16_t)(value < 32768 ? value : value - 65536);
    }
    do {
        const size_t taken = sasr_accept(stream, next, n);
        next += taken;
        n -= taken;
        if ((said = sasr_final(stream, 0)))
            write_utterance(said, options);
    } while (said);
    show(sasr_partial(stream), options);
}

/* `n` of `bytes` have been read already, at most `left` are to follow. A last odd byte is no sample. */
static void hear_all(sasr_stream *stream, unsigned char *bytes, size_t n, uint64_t left, struct options options)
{
    const sasr_utterance *said;
    for (;;) {
        const size_t room = 2 * PIECE - n, found = fread(bytes + n, 1, left < room ? (size_t)left : room, stdin);
        left -= found;
        n += found;
        hear(stream, bytes, n / 2, options);
        if (n < 2 * PIECE || stopped)
            break;
        n = 0;
    }
    while ((said = sasr_final(stream, 1)))
        write_utterance(said, options);
    show("", options);
    if (stopped)
        exit(130);
    if (ferror(stdin))
        fail("cannot read standard input to its end");
    if (left && left < UINT32_MAX)
        fprintf(stderr, "streamasr: the WAV ends %lu bytes before it should: is it cut short?\n", (unsigned long)left);
}

int main(int argc, char **argv)
{
    const struct options options = parse(argc, argv);
    unsigned char bytes[2 * PIECE];
    size_t n = fread(bytes, 1, 12, stdin);
    uint64_t left = UINT64_MAX;
    if (n == 12 && !memcmp(bytes, "RIFF", 4) && !memcmp(bytes + 8, "WAVE", 4)) {
        const unsigned long size = read_header();
        if (size && size < 0x7fff0000) /* what writes to a pipe does not know the size */
            left = size;
        n = 0;
    } else if (n == 12)
        refuse_others(bytes);
    signal(SIGINT, stop);
    sasr_stream *stream = sasr_create();
    if (!stream)
        fail("not enough memory");
    hear_all(stream, bytes, n, left, options);
    sasr_free(stream);
    return 0;
}
