/* Samples -> logarithms of mel power, by a DFT of which only the power is wanted. In double precision, which takes
 * no time beside the network: the result is rounded to 8 bits, so the fewer errors the fewer roundings differ. */
#include <math.h>
#include <string.h>

#include "network.h"

#define BINS (MODEL_N_FFT / 2 + 1)

#if (MODEL_N_FFT & (MODEL_N_FFT - 1)) == 0

#define HALF (MODEL_N_FFT / 2)

static void reverse_bits(double *values)
{
    for (size_t i = 1, j = 0; i < HALF; i++) {
        size_t bit = HALF / 2;
        for (; j & bit; bit /= 2)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            double kept = values[i];
            values[i] = values[j];
            values[j] = kept;
        }
    }
}

/* Cooley and Tukey's FFT of HALF complex values, in place. */
static void fft(double *real, double *imaginary)
{
    reverse_bits(real);
    reverse_bits(imaginary);
    for (size_t half = 1; half < HALF; half *= 2)
        for (size_t j = 0; j < half; j++) {
            double c = model_cosine[j * (HALF / half)], s = model_sine[j * (HALF / half)];
            for (size_t a = j, b = j + half; a < HALF; a += 2 * half, b += 2 * half) {
                double re = real[b] * c + imaginary[b] * s, im = imaginary[b] * c - real[b] * s;
                real[b] = real[a] - re;
                imaginary[b] = imaginary[a] - im;
                real[a] += re;
                imaginary[a] += im;
            }
        }
}

/* The spectrum of real samples from an FFT of half the size: even samples as real parts, odd ones as imaginary. */
static void powers(const float *samples, struct spectrum *work)
{
    double *re = work->real, *im = work->imaginary;
    memset(work, 0, sizeof *work);
    for (size_t i = 0; i < MODEL_WINDOW; i++)
        (i % 2 ? im : re)[i / 2] = (double)samples[i] * model_window[i];
    fft(re, im);
    work->power[0] = (re[0] + im[0]) * (re[0] + im[0]);
    work->power[HALF] = (re[0] - im[0]) * (re[0] - im[0]);
    for (size_t k = 1; k < HALF; k++) {
        size_t m = HALF - k;
        double even_re = 0.5 * (re[k] + re[m]), even_im = 0.5 * (im[k] - im[m]);
        double odd_re = 0.5 * (im[k] + im[m]), odd_im = 0.5 * (re[m] - re[k]);
        double c = model_cosine[k], s = model_sine[k];
        double sum_re = even_re + c * odd_re + s * odd_im, sum_im = even_im + c * odd_im - s * odd_re;
        work->power[k] = sum_re * sum_re + sum_im * sum_im;
    }
}

#else

/* Sizes that are no power of two: a sum for every bin. */
static void powers(const float *samples, struct spectrum *work)
{
    for (size_t i = 0; i < MODEL_WINDOW; i++)
        work->real[i] = (double)samples[i] * model_window[i];
    for (size_t k = 0; k < BINS; k++) {
        double re = 0.0, im = 0.0;
        for (size_t i = 0, angle = 0; i < MODEL_WINDOW; i++) {
            re += work->real[i] * model_cosine[angle];
            im += work->real[i] * model_sine[angle];
            angle += k;
            if (angle >= MODEL_N_FFT)
                angle -= MODEL_N_FFT;
        }
        work->power[k] = re * re + im * im;
    }
}

#endif

void log_mel(const float *samples, float *mels, struct spectrum *work)
{
    powers(samples, work);
    for (size_t m = 0; m < MODEL_MELS; m++) {
        const struct mel *mel = &model_mels[m];
        double sum = 0.0;
        for (size_t i = 0; i < mel->bins; i++)
            sum += mel->weight[i] * work->power[mel->first + i];
        mels[m] = (float)log(sum + model_floor);
    }
}
