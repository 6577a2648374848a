/* Where the records of Kafka's record batches (magic 2) are: varints, one record behind the other.
 *
 * What a batch says of its lengths is not believed: nothing outside of the given bytes is read.
 * https://kafka.apache.org/documentation/#recordbatch
 */
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at, *end;
} Bytes;

/* A zigzag varint of at most 64 bits; false behind the end, or for one that is too long. */
static bool varint(Bytes *bytes, int64_t *number)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (bytes->at == bytes->end)
            return false;
        uint8_t byte = *bytes->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *number = (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
            return true;
        }
    }
    return false;
}

/* A length and so many bytes; `start` is NULL for a length of -1, which is null. */
static bool sized(Bytes *bytes, const uint8_t **start, const uint8_t **stop)
{
    int64_t length;
    if (!varint(bytes, &length) || length < -1 || length > bytes->end - bytes->at)
        return false;
    *start = length < 0 ? 0 : bytes->at;
    if (length > 0)
        bytes->at += length;
    *stop = bytes->at;
    return true;
}

/* Headers, which nobody wants, to the end of the record. */
static bool headers(Bytes *bytes)
{
    const uint8_t *start, *stop;
    int64_t count;
    if (!varint(bytes, &count) || count < 0)
        return false;
    for (; count > 0; count--) /* each takes bytes, so it ends, whatever was said */
        if (!sized(bytes, &start, &stop) || !start || !sized(bytes, &start, &stop))
            return false;
    return bytes->at == bytes->end;
}

/* One record, which is the `number`-th of its batch; leaves `bytes` behind it. */
static bool record(Bytes *bytes, int64_t number, const uint8_t *key[2], const uint8_t *value[2])
{
    int64_t length, time_delta, offset_delta;
    if (!varint(bytes, &length) || length < 1 || length > bytes->end - bytes->at)
        return false;
    Bytes own = {bytes->at + 1, bytes->at + length};
    bool unknown = *bytes->at != 0; /* attributes, of which there are none yet */
    bytes->at += length;
    return !unknown && varint(&own, &time_delta) && varint(&own, &offset_delta) && offset_delta == number &&
           sized(&own, &key[0], &key[1]) && sized(&own, &value[0], &value[1]) && headers(&own);
}

/* The values of all records of `chunks` batches without their headers, which are `data` from `begins` to `ends` and
 * hold `counts` records each: where they start and stop, with a start of -1 for null. `key` is that of the first one.
 * Gives 0; or -1 if something is not as it should be, or offsets are missing: look at it record by record. */
int records_split(const uint8_t *data, int64_t chunks, const int64_t *begins, const int64_t *ends,
                  const int64_t *counts, int64_t *starts, int64_t *stops, int64_t *key)
{
    int64_t row = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        Bytes bytes = {data + begins[chunk], data + ends[chunk]};
        for (int64_t number = 0; number < counts[chunk]; number++, row++) {
            const uint8_t *keys[2], *value[2];
            if (!record(&bytes, number, keys, value))
                return -1;
            starts[row] = value[0] ? value[0] - data : -1;
            stops[row] = value[0] ? value[1] - data : -1;
            if (row == 0) {
                key[0] = keys[0] ? keys[0] - data : -1;
                key[1] = keys[0] ? keys[1] - data : -1;
            }
        }
        if (bytes.at != bytes.end)
            return -1;
    }
    return 0;
}
