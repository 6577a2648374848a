/* Running sums over errors, strictly from left to right: detectors/reference.py, detectors/change_point.py and
 * detectors/page_hinkley.py say what they are for, and have their twins. */

#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------------------------------ a window and its parts */

/* Adds errors to the total of a window, of which `position` came before; windows of `window` errors, a multiple of
 * `part`, follow one another and begin at 0. totals[0] becomes the total of the last one. The totals at the end of every `part` of a window are
 * put behind it, at most `capacity`; gives how many. */
size_t sums_fill(const double *errors, size_t n, size_t position, size_t window, size_t part, double *totals,
                      size_t capacity)
{
    double total = totals[0];
    size_t ended = 0, left = part - position % part;
    for (size_t i = 0; i < n; i++) {
        total += errors[i];
        position++;
        if (--left > 0)
            continue;
        left = part;
        if (ended < capacity)
            totals[1 + ended++] = total;
        if (position == window) {
            position = 0;
            total = 0.0;
        }
    }
    totals[0] = total;
    return ended;
}

/* ------------------------------------------------------------------------------------------------- where a mean moved */

/* How far apart positions are kept that the newest one is `age` ahead of: `fine` of them, 2 or more, at every
 * distance. */
static int64_t distance_at(int64_t age, int64_t fine)
{
    int64_t distance = 1;
    while (age / fine >= distance)
        distance *= 2;
    return distance;
}

/* Positions of a stored state may be anything: these wrap around, where plain arithmetic would be undefined. */
static int64_t later(int64_t position, int64_t by)
{
    return (int64_t)((uint64_t)position + (uint64_t)by);
}

static int64_t earlier(int64_t position, int64_t by)
{
    return (int64_t)((uint64_t)position - (uint64_t)by);
}

/* Whether a position is a multiple of the distance, which is a power of two. */
static int is_multiple(int64_t position, int64_t distance)
{
    return (position & (distance - 1)) == 0;
}

/* Of `held` positions and the totals at them, moves those that are kept at `newest` to the front; gives how many. */
static size_t thin(int64_t *positions, double *totals, size_t held, int64_t newest, int64_t fine)
{
    size_t kept = 0;
    for (size_t i = 0; i < held; i++) {
        if (!is_multiple(positions[i], distance_at(earlier(newest, positions[i]), fine)))
            continue;
        positions[kept] = positions[i];
        totals[kept++] = totals[i];
    }
    return kept;
}

/* Adds n errors, the first of which is number `first`, to sums[0], and their squares to sums[1]. Of the `held` positions
 * and the totals at them those go that are not kept any more; new ones are put behind them while there are fewer than
 * `capacity`, which is `held` at least. Gives how many there are then. */
size_t sums_fold(const double *errors, size_t n, int64_t first, int64_t fine, double *sums, int64_t *positions,
                      double *totals, size_t held, size_t capacity)
{
    int64_t age = (int64_t)n - 1, distance = distance_at(age, fine);
    double total = sums[0], squares = sums[1];
    size_t kept = thin(positions, totals, held, later(first, age), fine);
    for (size_t i = 0; i < n; i++, age--) {
        total += errors[i];
        squares += errors[i] * errors[i];
        while (distance > 1 && age < fine * (distance / 2))
            distance /= 2;
        const int64_t position = later(first, (int64_t)i);
        if (is_multiple(position, distance) && kept < capacity) {
            positions[kept] = position;
            totals[kept++] = total;
        }
    }
    sums[0] = total;
    sums[1] = squares;
    return kept;
}

/* ------------------------------------------------------------------------------------------------------ Page-Hinkley */

/* The sums of a Page-Hinkley test, as detectors.page_hinkley.Sums has them; `up` is the sum behind the last error. */
struct page_hinkley {
    double total, begun, grown, lowest, up;
};

/* Takes in errors of one block up to the first that fires; gives its index, or n. The first of them is the `number`-th
 * since the last reset. `shrink` are the powers of the forgetting at the errors, `grow` their inverses. */
size_t sums_page_hinkley(const double *errors, size_t n, const double *shrink, const double *grow, int64_t number,
                              double delta, double threshold, double minimum, struct page_hinkley *sums)
{
    struct page_hinkley at = *sums;
    size_t i = 0;
    for (; i < n; i++, number++) {
        at.total += errors[i];
        at.grown += (errors[i] - at.total / (double)number - delta) * grow[i];
        at.up = (at.begun + at.grown) * shrink[i];
        if (at.up < at.lowest)
            at.lowest = at.up;
        if (at.up - at.lowest > threshold && (double)number >= minimum)
            break;
    }
    *sums = at;
    return i;
}
