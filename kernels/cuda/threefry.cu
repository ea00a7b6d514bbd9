// SPDX-License-Identifier: MIT
// Random bits: Threefry-2x32 with 20 rounds over a 64-bit counter (Salmon et al., SC'11, section 4.2), in the layout of
// functorch_lite/backends/threefry.py, which is the reference of the tests.
//
//   keys [n_keys, 2] u32    out [n_keys, size]: element i of a row is the hash of counter i under the row's key
//
// One thread makes one hash at a time; the output is written once, coalesced, and nothing is read but the key.
#include "prelude.cuh"

struct FlWords {
  fl_u32 y0, y1;
};

FL_DEVICE void fl_threefry_round(FlWords& x, int distance) {
  x.y0 += x.y1;
  x.y1 = fl_rotate_left(x.y1, distance) ^ x.y0;
}

FL_DEVICE FlWords fl_threefry(fl_u32 k0, fl_u32 k1, fl_u64 counter) {
  // Skein's parity constant makes the third key word.
  const fl_u32 key[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  FlWords x = {fl_u32(counter >> 32) + k0, fl_u32(counter) + k1};
  FL_UNROLL
  for (int group = 0; group < 5; group++) {
    const bool odd = group & 1;
    fl_threefry_round(x, odd ? 17 : 13);
    fl_threefry_round(x, odd ? 29 : 15);
    fl_threefry_round(x, odd ? 16 : 26);
    fl_threefry_round(x, odd ? 24 : 6);
    x.y0 += key[(group + 1) % 3];
    x.y1 += key[(group + 2) % 3] + fl_u32(group + 1);
  }
  return x;
}

// The hash of the element at flat position `at` of [n_keys, size].
FL_DEVICE FlWords fl_threefry_at(const fl_u32* keys, fl_u64 n_keys, fl_u64 size, fl_u64 at) {
  // A 64-bit division costs a third of a hash: the common case of one key goes without.
  const fl_u64 row = n_keys == 1 ? 0 : at / size;
  return fl_threefry(keys[2 * row], keys[2 * row + 1], at - row * size);
}

FL_KERNEL(256) fl_threefry_bits8(const fl_u32* keys, fl_u8* out, fl_u64 n_keys, fl_u64 size) {
  FL_FOR_EACH(i, n_keys * size) {
    const FlWords w = fl_threefry_at(keys, n_keys, size, i);
    out[i] = fl_u8(w.y0 ^ w.y1);
  }
}

FL_KERNEL(256) fl_threefry_bits16(const fl_u32* keys, fl_u16* out, fl_u64 n_keys, fl_u64 size) {
  FL_FOR_EACH(i, n_keys * size) {
    const FlWords w = fl_threefry_at(keys, n_keys, size, i);
    out[i] = fl_u16(w.y0 ^ w.y1);
  }
}

FL_KERNEL(256) fl_threefry_bits32(const fl_u32* keys, fl_u32* out, fl_u64 n_keys, fl_u64 size) {
  FL_FOR_EACH(i, n_keys * size) {
    const FlWords w = fl_threefry_at(keys, n_keys, size, i);
    out[i] = w.y0 ^ w.y1;
  }
}

FL_KERNEL(256) fl_threefry_bits64(const fl_u32* keys, fl_u64* out, fl_u64 n_keys, fl_u64 size) {
  FL_FOR_EACH(i, n_keys * size) {
    const FlWords w = fl_threefry_at(keys, n_keys, size, i);
    out[i] = fl_u64(w.y0) << 32 | w.y1;
  }
}

// Both words of each hash, side by side: the keys that a split makes. out [n_keys, size, 2], 8-byte aligned.
FL_KERNEL(256) fl_threefry_words(const fl_u32* keys, uint2* out, fl_u64 n_keys, fl_u64 size) {
  FL_FOR_EACH(i, n_keys * size) {
    const FlWords w = fl_threefry_at(keys, n_keys, size, i);
    out[i] = make_uint2(w.y0, w.y1);
  }
}

FL_EXPORT(fl_threefry_bits8)
FL_EXPORT(fl_threefry_bits16)
FL_EXPORT(fl_threefry_bits32)
FL_EXPORT(fl_threefry_bits64)
FL_EXPORT(fl_threefry_words)
