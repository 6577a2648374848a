/* The rows of the join's tables (ROW of streams/rows.py) and the pairs of its effects (PAIR of streams/effects.py). */
#ifndef ROWS_H
#define ROWS_H

#include <stdint.h>

typedef struct {
    uint64_t key[2];
    int64_t offset, at_ms, event_ms;
    double number;
    int32_t ref;
    uint8_t kind, padding[3];
} Row;

typedef struct {
    Row row;
    int64_t outcome_offset, outcome_at_ms, outcome_event_ms;
    double outcome;
    int64_t joined_ms;
    uint8_t outcome_kind, padding[7];
} Pair;

_Static_assert(sizeof(Row) == 56 && sizeof(Pair) == 104, "rows are not as numpy has them");

static inline int within(int64_t index, int64_t count)
{
    return (uint64_t)index < (uint64_t)count;
}

/* Wraps around as numpy does: the times of records may be anything. */
static inline int64_t minus(int64_t one, int64_t other)
{
    return (int64_t)((uint64_t)one - (uint64_t)other);
}

#endif
