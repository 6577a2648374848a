/* The bets of an e-detector on one error after the other: detectors/wealth.py says what they are, and is their twin. */

#include <stddef.h>
#include <stdint.h>

/* Where the rows of the wealth begin, each of which has a number for every alternative. */
struct rows {
    double *gains, *stakes;
    const double *right, *slope, *weights;
};

static struct rows rows_of(double *wealth, size_t alternatives)
{
    struct rows rows = {
        .gains = wealth,
        .stakes = wealth + alternatives,
        .right = wealth + 2 * alternatives,
        .slope = wealth + 3 * alternatives,
        .weights = wealth + 4 * alternatives,
    };
    return rows;
}

/* Bets on one error; gives the statistic, whose terms are added in the order in which numpy adds rows. */
static double bet_on(double error, struct rows rows, size_t alternatives)
{
    double statistic = 0.0;
    for (size_t k = 0; k < alternatives; k++) {
        rows.stakes[k] += rows.weights[k] / rows.gains[k];
        rows.gains[k] *= rows.slope[k] * error + rows.right[k];
        statistic += rows.gains[k] * rows.stakes[k];
    }
    return statistic;
}

/* Bets on the errors up to the first at which the statistic reaches the threshold; gives its index, or n. The wealth,
 * five rows of so many alternatives, is then that behind the last error that was bet on. */
size_t bets_bet(const double *errors, size_t n, double threshold, double *wealth, size_t alternatives)
{
    struct rows rows = rows_of(wealth, alternatives);
    for (size_t i = 0; i < n; i++)
        if (bet_on(errors[i], rows, alternatives) >= threshold)
            return i;
    return n;
}
