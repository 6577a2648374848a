/* Plain predictions and outcomes, from JSON straight into columns.
 *
 * Only what is certain is taken: objects of ASCII text without escapes, known fields once each and of the right type,
 * numbers that every parser reads alike. Anything else (errors, but also much that is right) ends the pass, and the
 * JSON library decides. So whatever is taken here must be what that library would say; tests compare the two.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INT, FLOAT, BOOL, TEXT }; /* the kinds of streams.values */
enum { DEEPEST = 32, LONGEST_NUMBER = 40, EXACT_DIGITS = 15 };
enum { MOST_ID = 512, MOST_NAME = 200, MOST_CLASS = 512 };

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

typedef struct {
    const uint8_t *at, *end;
} Text;

typedef struct {
    const uint8_t *start;
    int64_t length;
} Span;

/* ------------------------------------------------------------------------------------------------- JSON's own parts */

static inline void blanks(Text *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\r' || *text->at == '\t'))
        text->at++;
}

/* The next character, if it is this one, and the blanks behind it. */
static inline bool take(Text *text, uint8_t character)
{
    if (text->at == text->end || *text->at != character)
        return false;
    text->at++;
    blanks(text);
    return true;
}

static bool word(Text *text, const char *letters, int64_t length)
{
    if (text->end - text->at < length || memcmp(text->at, letters, (size_t)length) != 0)
        return false;
    text->at += length;
    return true;
}

/* Eight characters at a time, each in a byte of a word, the first one in the lowest: the high bit of a byte says that
 * it is not wanted. Sums carry only upwards, so the lowest bit that is set is right. */
#define EACH(byte) (0x0101010101010101u * (byte))
enum { WORD = 8 };

static inline uint64_t not_digits(uint64_t word)
{
    uint64_t values = word ^ EACH('0');
    return (values + EACH(0x7F - 9)) | values;
}

/* All but printable ASCII without the quote and the backslash. */
static inline uint64_t not_ordinary(uint64_t word)
{
    uint64_t quotes = word ^ EACH('"'), slashes = word ^ EACH('\\');
    return ((quotes - EACH(1)) & ~quotes) | ((slashes - EACH(1)) & ~slashes) | (word - EACH(' ')) | (word + EACH(1)) | word;
}

/* How many of the next characters are wanted. Where `unwanted` is a constant, this is a handful of instructions. */
static inline int64_t run(const uint8_t *at, const uint8_t *end, uint64_t (*unwanted)(uint64_t))
{
    const uint8_t *start = at;
    for (;;) {
        uint64_t word = 0; /* behind the end: neither a digit nor ordinary */
        if (end - at >= WORD)
            memcpy(&word, at, WORD);
        else
            memcpy(&word, at, (size_t)(end - at));
        uint64_t found = unwanted(word) & EACH(0x80);
        if (found)
            return at - start + (__builtin_ctzll(found) >> 3);
        at += WORD;
    }
}

/* A string of ordinary characters. */
static inline bool string(Text *text, Span *span)
{
    if (text->at == text->end || *text->at != '"')
        return false;
    span->start = text->at + 1;
    span->length = run(span->start, text->end, not_ordinary);
    text->at = span->start + span->length;
    if (text->at == text->end || *text->at != '"')
        return false;
    text->at++;
    return true;
}

typedef struct {
    Span span;
    bool negative, fraction, exponent;
    int64_t digits; /* all of them, leading zeros too */
    int64_t behind; /* those behind the point */
} Number;

/* Digits, one at least. */
static inline bool digits(Text *text, int64_t *count)
{
    *count = run(text->at, text->end, not_digits);
    text->at += *count;
    return *count > 0;
}

/* A number as JSON writes it. */
static inline bool number_of(Text *text, Number *number)
{
    int64_t ahead;
    number->span.start = text->at;
    number->negative = text->at < text->end && *text->at == '-';
    text->at += number->negative;
    const uint8_t *first = text->at;
    if (!digits(text, &ahead) || (*first == '0' && ahead > 1))
        return false;
    number->behind = 0;
    number->fraction = text->at < text->end && *text->at == '.';
    text->at += number->fraction;
    if (number->fraction && !digits(text, &number->behind))
        return false;
    number->digits = ahead + number->behind;
    number->exponent = text->at < text->end && (*text->at | 0x20) == 'e';
    if (number->exponent) {
        text->at++;
        text->at += text->at < text->end && (*text->at == '+' || *text->at == '-');
        if (!digits(text, &ahead))
            return false;
    }
    number->span.length = text->at - number->span.start;
    return true;
}

/* The digits of a number without exponent, as if it had no point. */
static uint64_t mantissa(const Number *number)
{
    uint64_t value = 0;
    for (int64_t at = number->negative; at < number->span.length; at++)
        if (number->span.start[at] != '.')
            value = value * 10 + (uint64_t)(number->span.start[at] - '0');
    return value;
}

/* Any value, unread. A level of nesting is a bit: whether it is an object. */
static bool skip(Text *text)
{
    uint64_t objects = 0;
    int depth = 0;
    for (;;) {
        Span span;
        Number number;
        if (text->at == text->end)
            return false;
        uint8_t first = *text->at;
        if (first == '{' || first == '[') {
            if (depth == DEEPEST)
                return false;
            text->at++;
            blanks(text);
            if (text->at < text->end && *text->at == (first == '{' ? '}' : ']')) {
                text->at++;
            } else {
                objects = objects << 1 | (first == '{');
                depth++;
                if (first == '{' && !(string(text, &span) && (blanks(text), take(text, ':'))))
                    return false;
                continue;
            }
        } else if (first == '"') {
            if (!string(text, &span))
                return false;
        } else if (first == 't' ? !word(text, "true", 4)
                   : first == 'f' ? !word(text, "false", 5)
                   : first == 'n' ? !word(text, "null", 4)
                                  : !number_of(text, &number)) {
            return false;
        }
        for (;;) { /* behind a value: the next one of its array or object, or their ends */
            if (!depth)
                return true;
            blanks(text);
            if (take(text, ',')) {
                if (objects & 1 && !(string(text, &span) && (blanks(text), take(text, ':'))))
                    return false;
                break;
            }
            if (text->at == text->end || *text->at != (objects & 1 ? '}' : ']'))
                return false;
            text->at++;
            objects >>= 1;
            depth--;
        }
    }
}

/* ------------------------------------------------------------------------------------------------- fields of events */

static inline bool is_null(Text *text)
{
    return text->at < text->end && *text->at == 'n' && word(text, "null", 4);
}

static inline bool text_within(Text *text, int64_t least, int64_t most, Span *span)
{
    return string(text, span) && span->length >= least && span->length <= most;
}

/* The nearest double, as every correct parser gives it. */
static bool as_double(const Number *number, double *value)
{
    if (number->exponent || number->span.length > LONGEST_NUMBER)
        return false;
    if (number->digits <= EXACT_DIGITS) { /* both are exact, so their quotient is rounded once */
        *value = (double)mantissa(number) / POWERS[number->behind];
    } else {
        char copy[LONGEST_NUMBER + 1], *end;
        memcpy(copy, number->span.start, (size_t)number->span.length);
        copy[number->span.length] = 0;
        *value = strtod(copy, &end);
        return end == copy + number->span.length; /* or the locale has another point */
    }
    if (number->negative)
        *value = -*value;
    return true;
}

/* A whole number that fits a double, a time and 64 bits; not -0. */
static bool whole(const Number *number, double *value)
{
    if (number->fraction || number->exponent || number->digits > EXACT_DIGITS)
        return false;
    *value = (double)mantissa(number);
    if (number->negative)
        *value = -*value;
    return *value != 0 || !number->negative;
}

/* Distinct texts and the place of each, in the order in which they were first seen. */
typedef struct {
    int64_t *spans;  /* room for `most` entries of `width` (start, length) */
    int32_t *slots;  /* 2 × most, a power of two, zeros at first */
    int32_t count, most, width;
} Distinct;

static bool same(const uint8_t *data, const int64_t *entry, const Span *spans, int32_t width)
{
    for (int32_t at = 0; at < width; at++)
        if (entry[2 * at + 1] != spans[at].length ||
            memcmp(data + entry[2 * at], spans[at].start, (size_t)spans[at].length) != 0)
            return false;
    return true;
}

/* The place of a tuple of texts, or -1 if there are too many. */
static int32_t place_of(Distinct *distinct, const uint8_t *data, const Span *spans, int32_t last)
{
    int32_t width = distinct->width;
    if (last >= 0 && same(data, distinct->spans + 2 * width * last, spans, width))
        return last;
    uint64_t hash = 14695981039346656037u; /* FNV-1a: there are few, and too many end the pass */
    for (int32_t at = 0; at < width; at++) {
        for (int64_t i = 0; i < spans[at].length; i++)
            hash = (hash ^ spans[at].start[i]) * 1099511628211u;
        hash = (hash ^ 0xFF) * 1099511628211u;
    }
    uint32_t mask = 2 * (uint32_t)distinct->most - 1;
    for (uint32_t slot = (uint32_t)(hash ^ hash >> 32) & mask;; slot = (slot + 1) & mask) {
        int32_t held = distinct->slots[slot] - 1;
        if (held < 0) {
            if (distinct->count == distinct->most)
                return -1;
            int64_t *entry = distinct->spans + 2 * width * distinct->count;
            for (int32_t at = 0; at < width; at++) {
                entry[2 * at] = spans[at].length ? spans[at].start - data : 0;
                entry[2 * at + 1] = spans[at].length;
            }
            distinct->slots[slot] = ++distinct->count;
            return distinct->count - 1;
        }
        if (same(data, distinct->spans + 2 * width * held, spans, width))
            return held;
    }
}

/* A class or a number. */
static bool value_of(Text *text, const uint8_t *data, Distinct *texts, uint8_t *kind, double *value)
{
    Number number;
    Span span;
    if (text->at == text->end)
        return false;
    switch (*text->at) {
    case '"': {
        if (!text_within(text, 0, MOST_CLASS, &span))
            return false;
        int32_t place = place_of(texts, data, &span, -1);
        *kind = TEXT;
        *value = place;
        return place >= 0;
    }
    case 't':
        *kind = BOOL;
        *value = 1;
        return word(text, "true", 4);
    case 'f':
        *kind = BOOL;
        *value = 0;
        return word(text, "false", 5);
    default:
        if (!number_of(text, &number))
            return false;
        *kind = number.fraction ? FLOAT : INT;
        return number.fraction ? as_double(&number, value) : whole(&number, value);
    }
}

static bool two(const uint8_t *at, int *number)
{
    if ((uint8_t)(at[0] - '0') > 9 || (uint8_t)(at[1] - '0') > 9)
        return false;
    *number = (at[0] - '0') * 10 + (at[1] - '0');
    return true;
}

/* Days since 1970 of a date of the Gregorian calendar, from 1970 on (Howard Hinnant, days_from_civil). */
static int64_t days_of(int year, int month, int day)
{
    year -= month <= 2;
    int era = year / 400, of_era = year - era * 400;
    int of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097LL + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Epoch milliseconds of 2026-05-01T12:30:00.250Z or …+02:00, rounded as Python rounds a datetime's timestamp. */
static bool rfc3339(Span span, int64_t *at_ms)
{
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const uint8_t *at = span.start, *end = span.start + span.length;
    int century, year, month, day, hour, minute, second, micros = 0, zone_hour = 0, zone_minute = 0, sign = 0;
    if (span.length < 20 || !two(at, &century) || !two(at + 2, &year) || at[4] != '-' || !two(at + 5, &month) ||
        at[7] != '-' || !two(at + 8, &day) || at[10] != 'T' || !two(at + 11, &hour) || at[13] != ':' ||
        !two(at + 14, &minute) || at[16] != ':' || !two(at + 17, &second))
        return false;
    year += 100 * century;
    if (year < 1970 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59)
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day < 1 || day > DAYS[month - 1] + (leap && month == 2))
        return false;
    at += 19;
    if (*at == '.') {
        int unit = 100000;
        for (at++; at < end && (uint8_t)(*at - '0') < 10 && unit; at++, unit /= 10)
            micros += (*at - '0') * unit;
        if (unit == 100000 || at == end)
            return false;
    }
    if (*at == 'Z' && end - at == 1) {
        sign = 0;
    } else if ((*at == '+' || *at == '-') && end - at == 6 && two(at + 1, &zone_hour) && at[3] == ':' &&
               two(at + 4, &zone_minute) && zone_hour < 15 && zone_minute < 60) {
        sign = *at == '+' ? -1 : 1;
    } else {
        return false;
    }
    int64_t seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second +
                      sign * (zone_hour * 3600 + zone_minute * 60);
    int64_t all_micros = seconds * 1000000 + micros;
    if (all_micros < 0 || all_micros > (1LL << 53))
        return false;
    *at_ms = (int64_t)nearbyint((double)all_micros / 1e6 * 1e3);
    return true;
}

/* Epoch milliseconds, however they are written; null leaves them as they are. */
static bool time_of(Text *text, int64_t *at_ms)
{
    Number number;
    Span span;
    double value;
    if (is_null(text))
        return true;
    if (text->at < text->end && *text->at == '"')
        return string(text, &span) && rfc3339(span, at_ms);
    if (!number_of(text, &number) || number.negative || !whole(&number, &value))
        return false;
    *at_ms = (int64_t)value;
    return true;
}

/* A number within bounds that 0.… is within too, or null. Nobody looks at it afterwards. */
static bool float_of(Text *text, double least, double most)
{
    Number number;
    double value;
    if (is_null(text))
        return true;
    if (!number_of(text, &number))
        return false;
    if (*number.span.start == '0' && !number.exponent)
        return true;
    return as_double(&number, &value) && value >= least && value <= most;
}

/* One more than what a lower-case hexadecimal digit stands for; 0 for anything else. */
static const uint8_t HEXADECIMAL[256] = {
    ['0'] = 1, ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16};

/* The 16 bytes of a UUID as streams.ids reads them: lower case, dashes in place. */
static bool uuid(Span span, uint8_t *key)
{
    if (span.length != 36)
        return false;
    static const uint8_t PLACES[] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    const uint8_t *at = span.start;
    bool good = at[8] == '-' && at[13] == '-' && at[18] == '-' && at[23] == '-';
    for (int byte = 0; byte < 16; byte++) { /* without branches: half of the digits are letters */
        uint8_t high = HEXADECIMAL[at[PLACES[byte]]], low = HEXADECIMAL[at[PLACES[byte] + 1]];
        good &= (high != 0) & (low != 0);
        key[byte] = (uint8_t)((high - 1u) << 4 | (low - 1u));
    }
    return good;
}

/* ------------------------------------------------------------------------------------------------------ whole events */

/* Columns of the caller, a row an event. `times` come filled with the records' own. */
typedef struct {
    uint8_t *keys;  /* 16 a row */
    int64_t *ids;   /* start and length of an id that is no UUID; a length of 0 where the key is there */
    int64_t *times;
    uint8_t *kinds;
    double *numbers;
    int32_t *names; /* places of names; -1 where an outcome claims no model */
    Distinct texts, distinct_names;
} Columns;

typedef enum { ID, MODEL, VERSION, VALUE, TIME, SCORE, SEGMENT, SOURCE, WEIGHT, UNKNOWN } Field;

typedef struct {
    const char *name;
    int64_t length;
    Field field;
} Named;

#define NAMED(name, field) {name, sizeof name - 1, field}
static const Named OF_PREDICTION[] = {
    NAMED("prediction_id", ID),  NAMED("model", MODEL), NAMED("version", VERSION), NAMED("prediction", VALUE),
    NAMED("predicted_at", TIME), NAMED("score", SCORE), NAMED("segment", SEGMENT), {0, 0, UNKNOWN}};
static const Named OF_OUTCOME[] = {NAMED("prediction_id", ID), NAMED("outcome", VALUE), NAMED("observed_at", TIME),
                                   NAMED("model", MODEL),      NAMED("source", SOURCE), NAMED("weight", WEIGHT),
                                   {0, 0, UNKNOWN}};
enum { NEEDED_OF_PREDICTION = 1 << ID | 1 << MODEL | 1 << VERSION | 1 << VALUE, NEEDED_OF_OUTCOME = 1 << ID | 1 << VALUE };

static inline Field field_of(const Named *fields, Span key)
{
    for (; fields->name; fields++)
        if (fields->length == key.length && memcmp(fields->name, key.start, (size_t)key.length) == 0)
            break;
    return fields->field;
}

static bool version_of(Text *text, Span *span)
{
    Number number;
    double value;
    if (text->at < text->end && *text->at == '"')
        return text_within(text, 1, MOST_NAME, span);
    if (!number_of(text, &number) || number.negative || !whole(&number, &value))
        return false;
    *span = number.span;
    return true;
}

static bool source_of(Text *text)
{
    Span span;
    if (is_null(text))
        return true;
    return string(text, &span) && ((span.length == 6 && memcmp(span.start, "system", 6) == 0) ||
                                   (span.length == 5 && memcmp(span.start, "human", 5) == 0));
}

/* One event, in row `row`. */
static bool event(Text text, const uint8_t *data, bool prediction, Columns *columns, int64_t row)
{
    const Named *fields = prediction ? OF_PREDICTION : OF_OUTCOME;
    Span id = {0, 0}, names[3] = {{data, 0}, {data, 0}, {data, 0}}; /* model, version, segment */
    unsigned seen = 0;
    blanks(&text);
    if (!take(&text, '{'))
        return false;
    do {
        Span key;
        if (!string(&text, &key))
            return false;
        blanks(&text);
        if (!take(&text, ':'))
            return false;
        Field field = field_of(fields, key);
        if (field != UNKNOWN && seen & 1u << field)
            return false;
        bool good;
        switch (field) {
        case ID:
            good = text_within(&text, 1, MOST_ID, &id);
            break;
        case MODEL:
            good = (!prediction && is_null(&text)) || text_within(&text, 1, MOST_NAME, &names[0]);
            break;
        case VERSION:
            good = version_of(&text, &names[1]);
            break;
        case VALUE:
            good = value_of(&text, data, &columns->texts, &columns->kinds[row], &columns->numbers[row]);
            break;
        case TIME:
            good = time_of(&text, &columns->times[row]);
            break;
        case SCORE:
            good = float_of(&text, 0, 1);
            break;
        case SEGMENT:
            good = is_null(&text) || text_within(&text, 0, MOST_NAME, &names[2]);
            break;
        case SOURCE:
            good = source_of(&text);
            break;
        case WEIGHT:
            good = float_of(&text, -HUGE_VAL, HUGE_VAL);
            break;
        default:
            good = skip(&text);
        }
        if (!good)
            return false;
        seen |= 1u << field;
        blanks(&text);
    } while (take(&text, ','));
    unsigned needed = prediction ? NEEDED_OF_PREDICTION : NEEDED_OF_OUTCOME;
    if (!take(&text, '}') || text.at != text.end || (seen & needed) != needed)
        return false;
    bool parsed = uuid(id, columns->keys + 16 * row);
    columns->ids[2 * row] = parsed ? 0 : id.start - data;
    columns->ids[2 * row + 1] = parsed ? 0 : id.length;
    columns->names[row] = -1;
    if (prediction || names[0].length) {
        columns->names[row] = place_of(&columns->distinct_names, data, names, row ? columns->names[row - 1] : -1);
        return columns->names[row] >= 0;
    }
    return true;
}

/* The events of `rows` values, which are `data` from `starts` to `stops`, into columns → how many were plain: fewer
 * than `rows` means that the one behind them must be looked at otherwise.
 *
 * `texts` and `distinct` have room for `most` (start, length), of which a name has three or, of an outcome, one; their
 * slots are 2 × `most`, a power of two, and zero; `counts` is how many there are of both in the end. */
int64_t events_decode(int prediction, const uint8_t *data, int64_t rows, const int64_t *starts, const int64_t *stops,
                      uint8_t *keys, int64_t *ids, int64_t *times, uint8_t *kinds, double *numbers, int32_t *names,
                      int32_t most, int64_t *texts, int32_t *text_slots, int64_t *distinct, int32_t *name_slots,
                      int32_t *counts)
{
    Columns columns = {keys,    ids,   times, kinds, numbers, names, {texts, text_slots, 0, most, 1},
                       {distinct, name_slots, 0, most, prediction ? 3 : 1}};
    int64_t row = 0;
    for (; row < rows; row++) {
        if (starts[row] < 0)
            break;
        Text text = {data + starts[row], data + stops[row]};
        if (!event(text, data, prediction, &columns, row))
            break;
    }
    counts[0] = columns.texts.count;
    counts[1] = columns.distinct_names.count;
    return row;
}
