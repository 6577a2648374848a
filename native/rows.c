/* The rows of the join's tables (streams/rows.py), the pairs of its effects (streams/effects.py), and what becomes of
 * outcomes (streams/fates.py). Rows are named by numbers that the arrays themselves hold: each is looked at before it
 * is used, and a function returns -1 for one that is not there.
 */
#include <stdint.h>

#include "rows.h"

#define AHEAD 16 /* Rows that are asked for before they are looked at, so that they are in the cache by then. */

enum { GONE, WAITING, JOINED, EXPIRED };                       /* streams/rows.py */
enum { UNMET, BAD, FIRST, LATE, OVERDUE, KNOWN, MET };         /* streams/fates.py */

/* Some events of a side, by their numbers in its columns, as rows. */
int rows_fill(Row *rows, const int64_t *at, int64_t count, int64_t length, const uint64_t (*keys)[2],
              const int64_t *offsets, const int64_t *at_ms, const int64_t *event_ms, const double *numbers,
              const int32_t *refs, const uint8_t *kinds)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t n = at[i];
        if (!within(n, length))
            return -1;
        rows[i] = (Row){{keys[n][0], keys[n][1]}, offsets[n], at_ms[n], event_ms[n], numbers[n], refs[n], kinds[n],
                        {0}};
    }
    return 0;
}

/* Rows `kept` become rows 0, 1, ... of a table, which may be their own: they rise, so none is written before it
 * is read. */
int rows_move(Row *to, const Row *rows, int64_t row_count, const int64_t *kept, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (!within(kept[i], row_count))
            return -1;
        to[i] = rows[kept[i]];
    }
    return 0;
}

/* Where an offset is if no row between it and row `near` is gone; it is never further away. */
static inline int64_t furthest(const Row *rows, int64_t end, int64_t near, int64_t offset)
{
    int64_t from = rows[near].offset;
    uint64_t apart = (uint64_t)offset - (uint64_t)from, left = (uint64_t)(end - 1 - near);
    if (offset >= from)
        return apart < left ? near + (int64_t)apart : end - 1;
    return -apart < (uint64_t)near ? near - (int64_t)-apart : 0;
}

/* Where offsets are, or would be, among rows whose offsets rise. What is looked for next is mostly near by. */
void rows_at(const Row *rows, int64_t end, const int64_t *offsets, int64_t count, int64_t *found)
{
    int64_t near = 0;
    for (int64_t i = 0; i < count; i++) {
        if (end == 0) {
            found[i] = 0;
            continue;
        }
        if (i + AHEAD < count)
            __builtin_prefetch(&rows[furthest(rows, end, near, offsets[i + AHEAD])]);
        int64_t far = furthest(rows, end, near, offsets[i]);
        int64_t low = far < near ? far : near, high = (far > near ? far : near) + 1;
        if (rows[far].offset == offsets[i])
            low = high = far;
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (rows[middle].offset < offsets[i])
                low = middle + 1;
            else
                high = middle;
        }
        found[i] = low;
        near = low < end ? low : end - 1;
    }
}

/* Pairs of predictions, the rows `partners`, and outcomes, some of a side by their numbers in its columns. */
int rows_pairs(Pair *pairs, const Row *rows, int64_t row_count, const int64_t *partners, const int64_t *at,
               int64_t count, int64_t length, const int64_t *offsets, const int64_t *at_ms, const int64_t *event_ms,
               const double *numbers, const uint8_t *kinds)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t n = at[i];
        if (!within(n, length) || !within(partners[i], row_count))
            return -1;
        const Row *row = &rows[partners[i]];
        int64_t joined_ms = row->at_ms > at_ms[n] ? row->at_ms : at_ms[n];
        pairs[i] = (Pair){*row, offsets[n], at_ms[n], event_ms[n], numbers[n], joined_ms, kinds[n], {0}};
    }
    return 0;
}

/* Rows that wait have got the outcomes of pairs. */
int rows_join(uint8_t *states, int64_t *joined_ms, double *outcomes, uint8_t *outcome_kinds, int64_t row_count,
              const int64_t *rows, const Pair *pairs, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t row = rows[i];
        if (!within(row, row_count))
            return -1;
        states[row] = JOINED;
        joined_ms[row] = pairs[i].joined_ms;
        outcomes[row] = pairs[i].outcome;
        outcome_kinds[row] = pairs[i].outcome_kind;
    }
    return 0;
}

/* Of rows that may be named more than once: where each is named first. `marks` has a place for each row. */
int rows_first(int64_t *marks, int64_t row_count, const int64_t *rows, int64_t count, uint8_t *first)
{
    for (int64_t i = count - 1; i >= 0; i--) {
        if (!within(rows[i], row_count))
            return -1;
        marks[rows[i]] = i;
    }
    for (int64_t i = 0; i < count; i++)
        first[i] = marks[rows[i]] == i;
    return 0;
}

/* What becomes of outcomes whose predictions are the rows `owners`, or -1.
 *
 * The rows from `start` on are new; `meets` tells which of them pair with outcomes that have waited. `before` tells
 * which outcomes come before the new predictions of their ids. Returns how many do, or -1. */
int64_t rows_fates(const Row *rows, const uint8_t *states, const int64_t *joined_ms, int64_t row_count,
                   const int64_t *owners, const int64_t *at_ms, const uint8_t *bad, int64_t count, int64_t start,
                   const uint8_t *meets, int64_t meets_count, int64_t horizon_ms, int64_t dedupe_ms, uint8_t *fates,
                   uint8_t *before)
{
    int64_t early = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t row = owners[i], now = at_ms[i];
        before[i] = 0;
        fates[i] = bad[i] ? BAD : UNMET;
        if (bad[i] || row < 0)
            continue;
        if (!within(row, row_count) || (row >= start && !within(row - start, meets_count)))
            return -1;
        int64_t made_ms = rows[row].at_ms;
        if (row >= start) {
            before[i] = made_ms > now;
            early += before[i];
            if (meets[row - start]) {
                fates[i] = MET;
                continue;
            }
        }
        int64_t oldest_ms = minus(now, horizon_ms);
        int due = states[row] == WAITING && made_ms < oldest_ms;
        int remembered = made_ms >= minus(oldest_ms, dedupe_ms);
        if (states[row] == WAITING && !due)
            fates[i] = made_ms <= minus(now, -horizon_ms) ? FIRST : UNMET;
        else if (due)
            fates[i] = remembered ? OVERDUE : UNMET;
        else if (states[row] == EXPIRED)
            fates[i] = remembered ? LATE : UNMET;
        else if (states[row] == JOINED)
            fates[i] = joined_ms[row] >= minus(now, dedupe_ms) ? KNOWN : UNMET;
    }
    return early;
}
