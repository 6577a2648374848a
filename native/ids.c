/* The hash table of streams/id_index.py: open addressing with linear probes over keys of 16 bytes.
 *
 * A slot is 0 (empty), or 32 bits of the key's hash above the number of its row plus one. The keys themselves are in
 * the rows, `row_bytes` apart. A slot may name any row at all: one beyond `row_count` is never looked at. No search
 * takes more steps than there are slots, so a full table ends it, too.
 */
#include <stdint.h>
#include <string.h>

#define EMPTY 0
#define GOLDEN 0x9E3779B97F4A7C15u
#define BLOCK 256 /* Keys whose slots, and then rows, are fetched into the cache together: one wait for all of them. */

typedef struct {
    uint64_t *slots;
    uint64_t mask;
    int shift;
    uint64_t mix;
    const char *rows;
    int64_t row_bytes;
    uint64_t row_count;
} Table;

static Table table_of(int64_t *slots, int64_t slot_count, uint64_t mix, const char *rows, int64_t row_bytes,
                      int64_t row_count)
{
    int shift = 64;
    for (uint64_t left = (uint64_t)slot_count; left > 1; left >>= 1)
        shift--;
    return (Table){(uint64_t *)slots, (uint64_t)slot_count - 1, shift, mix, rows, row_bytes, (uint64_t)row_count};
}

static inline uint64_t hash_of(const char *key, uint64_t mix)
{
    uint64_t halves[2];
    memcpy(halves, key, sizeof halves);
    uint64_t mixed = (halves[0] ^ (halves[1] * mix)) * GOLDEN;
    mixed ^= mixed >> 29;
    return mixed * mix;
}

static inline uint64_t row_in(uint64_t slot)
{
    return (slot & 0xFFFFFFFFu) - 1;
}

static inline int same_tag(uint64_t slot, uint64_t hash)
{
    return slot >> 32 == (hash & 0xFFFFFFFFu);
}

static inline int names(const Table *table, uint64_t slot, uint64_t hash, const char *key)
{
    uint64_t row = row_in(slot);
    return same_tag(slot, hash) && row < table->row_count
        && memcmp(table->rows + (int64_t)row * table->row_bytes, key, 16) == 0;
}

/* The slot that names a key's row, or else the empty one where the search for it ends; -1 if there is neither. */
static inline int64_t slot_for(const Table *table, uint64_t hash, const char *key)
{
    uint64_t at = hash >> table->shift;
    for (uint64_t steps = 0; steps <= table->mask; steps++, at = (at + 1) & table->mask)
        if (table->slots[at] == EMPTY || names(table, table->slots[at], hash, key))
            return (int64_t)at;
    return -1;
}

/* The hashes of some keys; what a search for them reads first is on its way into the cache. */
static inline void look_ahead(const Table *table, const char *keys, int64_t key_bytes, int64_t count, uint64_t *hashes)
{
    for (int64_t i = 0; i < count; i++) {
        hashes[i] = hash_of(keys + i * key_bytes, table->mix);
        __builtin_prefetch(&table->slots[hashes[i] >> table->shift]);
    }
    for (int64_t i = 0; i < count; i++) {
        uint64_t slot = table->slots[hashes[i] >> table->shift];
        if (slot != EMPTY && same_tag(slot, hashes[i]) && row_in(slot) < table->row_count)
            __builtin_prefetch(table->rows + (int64_t)row_in(slot) * table->row_bytes);
    }
}

static inline int64_t block_at(int64_t start, int64_t count)
{
    return count - start < BLOCK ? count - start : BLOCK;
}

/* The row of each key, or -1. */
void ids_find(int64_t *slots, int64_t slot_count, uint64_t mix, const char *rows, int64_t row_bytes, int64_t row_count,
              const char *keys, int64_t key_bytes, int64_t count, int64_t *found)
{
    Table table = table_of(slots, slot_count, mix, rows, row_bytes, row_count);
    uint64_t hashes[BLOCK];
    for (int64_t start = 0; start < count; start += BLOCK) {
        const char *block = keys + start * key_bytes;
        look_ahead(&table, block, key_bytes, block_at(start, count), hashes);
        for (int64_t i = 0; i < block_at(start, count); i++) {
            int64_t at = slot_for(&table, hashes[i], block + i * key_bytes);
            found[start + i] = at < 0 || table.slots[at] == EMPTY ? -1 : (int64_t)row_in(table.slots[at]);
        }
    }
}

/* Let keys be found in rows first, first + 1, ... Of equal keys the first one is; the others are `repeated`.
 *
 * `written` and `before` take the slots that were written and what they held: each is written once, so they can be
 * taken back in any order. `counts` are how many those are, and how many are repeated. Returns -1 if the table is full.
 */
int ids_insert(int64_t *slots, int64_t slot_count, uint64_t mix, const char *rows, int64_t row_bytes,
               int64_t row_count, const char *keys, int64_t key_bytes, int64_t count, int64_t first, int64_t *written,
               int64_t *before, int64_t *repeated, int64_t *counts)
{
    Table table = table_of(slots, slot_count, mix, rows, row_bytes, row_count);
    uint64_t hashes[BLOCK];
    counts[0] = counts[1] = 0;
    for (int64_t start = 0; start < count; start += BLOCK) {
        const char *block = keys + start * key_bytes;
        look_ahead(&table, block, key_bytes, block_at(start, count), hashes);
        for (int64_t i = 0; i < block_at(start, count); i++) {
            int64_t at = slot_for(&table, hashes[i], block + i * key_bytes);
            if (at < 0)
                return -1;
            if (table.slots[at] != EMPTY && (int64_t)row_in(table.slots[at]) >= first) {
                repeated[counts[1]++] = start + i;
                continue;
            }
            written[counts[0]] = at;
            before[counts[0]++] = (int64_t)table.slots[at];
            table.slots[at] = hashes[i] << 32 | (uint64_t)(first + start + i + 1);
        }
    }
    return 0;
}

/* Fill an empty table with all rows. Of equal keys the last one is found. Returns -1 if the table is full. */
int ids_rebuild(int64_t *slots, int64_t slot_count, uint64_t mix, const char *rows, int64_t row_bytes,
                int64_t row_count)
{
    Table table = table_of(slots, slot_count, mix, rows, row_bytes, row_count);
    uint64_t hashes[BLOCK];
    for (int64_t end = row_count; end > 0; end -= BLOCK) {
        int64_t start = end < BLOCK ? 0 : end - BLOCK;
        const char *block = rows + start * row_bytes;
        look_ahead(&table, block, row_bytes, end - start, hashes);
        for (int64_t i = end - start - 1; i >= 0; i--) {
            int64_t at = slot_for(&table, hashes[i], block + i * row_bytes);
            if (at < 0)
                return -1;
            if (table.slots[at] == EMPTY)
                table.slots[at] = hashes[i] << 32 | (uint64_t)(start + i + 1);
        }
    }
    return 0;
}
