/* What a checkpoint says of its pairs (streams/summarise.py): the columns of a summary, and counts of equal rows. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows.h"

#define SECOND_MS 1000
#define MINUTE_MS 60000
#define TEXT 3 /* streams/values.py */

enum { ACTUAL = 1, PREDICTED = 2, OTHER = 4 }; /* detectors/four_rates.py */

static inline int64_t whole(int64_t time, int64_t unit)
{
    return time / unit - (time % unit < 0);
}

/* A class as an integer: twice the number, or twice the place of a text and one. */
static inline int64_t class_of(double number, uint8_t kind)
{
    int64_t truncated = fabs(number) < 0x1p63 ? (int64_t)number : INT64_MIN; /* as the processor, and numpy, has it */
    return (int64_t)(2 * (uint64_t)truncated + (kind == TEXT));
}

/* The number of bits of a delay in seconds; of one that is none, 0. */
static inline int64_t bits_of(int64_t delay_ms)
{
    double seconds = (double)(delay_ms > 0 ? delay_ms / SECOND_MS : 0);
    uint64_t representation;
    memcpy(&representation, &seconds, sizeof representation);
    return seconds > 0 ? (int64_t)(representation >> 52) - 1022 : 0;
}

/* Whether pairs rise by ref, second of completion and outcome offset. */
int pairs_rise(const Pair *pairs, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        const Pair *last = &pairs[i - 1], *next = &pairs[i];
        int64_t before = whole(last->joined_ms, SECOND_MS), now = whole(next->joined_ms, SECOND_MS);
        int rises = next->row.ref > last->row.ref;
        if (next->row.ref == last->row.ref)
            rises = now > before || (now == before && next->outcome_offset > last->outcome_offset);
        if (!rises)
            return 0;
    }
    return 1;
}

void pairs_columns(const Pair *pairs, int64_t count, int64_t *refs, uint32_t *seconds, int64_t *offsets, uint8_t *wrong,
                   double *off, int64_t *minutes, int64_t *made, int64_t *predicted, int64_t *observed, int64_t *delays)
{
    for (int64_t i = 0; i < count; i++) {
        const Pair *pair = &pairs[i];
        const Row *row = &pair->row;
        refs[i] = row->ref;
        seconds[i] = (uint32_t)whole(pair->joined_ms, SECOND_MS);
        offsets[i] = pair->outcome_offset;
        wrong[i] = row->number != pair->outcome || (row->kind == TEXT) != (pair->outcome_kind == TEXT);
        off[i] = row->number - pair->outcome;
        minutes[i] = whole(pair->joined_ms, MINUTE_MS);
        made[i] = whole(row->at_ms, MINUTE_MS);
        predicted[i] = class_of(row->number, row->kind);
        observed[i] = class_of(pair->outcome, pair->outcome_kind);
        delays[i] = bits_of(minus(pair->outcome_event_ms, row->event_ms));
    }
}

/* The codes of pairs (detectors/four_rates.py). Of run n, up to `ends[n]`, the positive class is the number
 * `positive[n]`, of a text if `is_text[n]`; if `free[n]`, pairs of other classes than 0 and 1 are none of two classes.
 */
int pairs_codes(const Pair *pairs, int64_t count, const int64_t *ends, const double *positive, const uint8_t *is_text,
                const uint8_t *free, int64_t runs, uint8_t *codes)
{
    int64_t i = 0;
    for (int64_t n = 0; n < runs; n++) {
        if (ends[n] > count)
            return -1;
        for (; i < ends[n]; i++) {
            const Pair *pair = &pairs[i];
            double outcome = pair->outcome, number = pair->row.number;
            int outcome_text = pair->outcome_kind == TEXT, text = pair->row.kind == TEXT;
            int code = (outcome == positive[n] && outcome_text == is_text[n] ? ACTUAL : 0)
                     | (number == positive[n] && text == is_text[n] ? PREDICTED : 0);
            int other = outcome_text || text || (outcome != 0 && outcome != 1) || (number != 0 && number != 1);
            codes[i] = (uint8_t)(free[n] && other ? OTHER : code);
        }
    }
    return i == count ? 0 : -1;
}

/* The least and the greatest number of each of some columns of at least one row. */
void pairs_bounds(const int64_t *const *columns, int64_t width, int64_t count, int64_t *least, int64_t *greatest)
{
    for (int64_t n = 0; n < width; n++) {
        const int64_t *column = columns[n];
        int64_t low = column[0], high = column[0];
        for (int64_t i = 1; i < count; i++) {
            low = column[i] < low ? column[i] : low;
            high = column[i] > high ? column[i] : high;
        }
        least[n] = low;
        greatest[n] = high;
    }
}

/* Count equal rows of columns. A row is the number that its columns, each above the least by less than `spans`, are the
 * digits of; there are `cells` such numbers. Returns -1 for a row that is none of them. */
int pairs_count(const int64_t *const *columns, const int64_t *least, const int64_t *spans, int64_t width, int64_t count,
                int64_t *counts, int64_t cells)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t cell = 0;
        for (int64_t n = 0; n < width; n++)
            cell = cell * (uint64_t)spans[n] + ((uint64_t)columns[n][i] - (uint64_t)least[n]);
        if (cell >= (uint64_t)cells)
            return -1;
        counts[cell]++;
    }
    return 0;
}
