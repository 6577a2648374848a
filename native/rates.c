/* The outcomes of one of the four rates among those of a binary model: detectors/four_rates.py has its twin. */

#include <stddef.h>
#include <stdint.h>

/* An outcome of a code belongs to the rate if the code has the bit set, or has not, as `positive` says; it is an error
 * if the code is `wrong`. Writes the places of those that belong, their seconds and their errors, each of which has room
 * for n; gives how many belong. */
size_t driftline_rate(const uint8_t *codes, const int64_t *seconds, size_t n, int bit, int positive, int wrong,
                      int64_t *places, int64_t *their_seconds, double *errors)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        /* Written for every outcome, and kept if it belongs: which ones do is nothing that a processor could guess. */
        places[found] = (int64_t)i;
        their_seconds[found] = seconds[i];
        errors[found] = codes[i] == wrong;
        found += ((codes[i] & bit) != 0) == positive;
    }
    return found;
}
