// BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), as bundles name their content by it.

const IV = Int32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const CHUNK = 1024;
const BLOCK = 64;
const [CHUNK_START, CHUNK_END, PARENT, ROOT] = [1, 2, 4, 8];

// Which word of the message is used where, round by round: each is a permutation of the one before.
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const ROUNDS = 7;
const ORDER = new Uint8Array(16 * ROUNDS);
for (let i = 0; i < 16 * ROUNDS; i++) ORDER[i] = i < 16 ? i : ORDER[i - 16 - (i % 16) + PERMUTATION[i % 16]];

const v = new Int32Array(16);

function mix(a, b, c, d, x, y) {
  let vb = v[b];
  let va = (v[a] + vb + x) | 0;
  let vd = v[d] ^ va;
  vd = (vd >>> 16) | (vd << 16);
  let vc = (v[c] + vd) | 0;
  vb ^= vc;
  vb = (vb >>> 12) | (vb << 20);
  va = (va + vb + y) | 0;
  vd ^= va;
  vd = (vd >>> 8) | (vd << 24);
  vc = (vc + vd) | 0;
  vb ^= vc;
  vb = (vb >>> 7) | (vb << 25);
  v[a] = va;
  v[b] = vb;
  v[c] = vc;
  v[d] = vd;
}

// Mixes a block of 16 words into a chaining value, in place.
function compress(value, words, at, counter, length, flags) {
  for (let i = 0; i < 8; i++) v[i] = value[i];
  for (let i = 0; i < 4; i++) v[8 + i] = IV[i];
  v[12] = counter | 0;
  v[13] = Math.floor(counter / 0x100000000) | 0;
  v[14] = length;
  v[15] = flags;
  for (let r = 0; r < 16 * ROUNDS; r += 16) {
    mix(0, 4, 8, 12, words[at + ORDER[r]], words[at + ORDER[r + 1]]);
    mix(1, 5, 9, 13, words[at + ORDER[r + 2]], words[at + ORDER[r + 3]]);
    mix(2, 6, 10, 14, words[at + ORDER[r + 4]], words[at + ORDER[r + 5]]);
    mix(3, 7, 11, 15, words[at + ORDER[r + 6]], words[at + ORDER[r + 7]]);
    mix(0, 5, 10, 15, words[at + ORDER[r + 8]], words[at + ORDER[r + 9]]);
    mix(1, 6, 11, 12, words[at + ORDER[r + 10]], words[at + ORDER[r + 11]]);
    mix(2, 7, 8, 13, words[at + ORDER[r + 12]], words[at + ORDER[r + 13]]);
    mix(3, 4, 9, 14, words[at + ORDER[r + 14]], words[at + ORDER[r + 15]]);
  }
  for (let i = 0; i < 8; i++) value[i] = v[i] ^ v[i + 8];
}

// The digest of bytes that come piece by piece.
export class Hasher {
  constructor() {
    this.bytes = new Uint8Array(CHUNK); // of the chunk that is not complete
    this.words = new Int32Array(this.bytes.buffer); // every machine with a browser is little-endian
    this.filled = 0;
    this.chunks = 0; // complete ones
    this.stack = []; // of subtrees that wait for the one to their right
  }

  update(data) {
    for (let at = 0; at < data.length; ) {
      // The last chunk is the root's if there is no other: it is finished only when more comes.
      if (this.filled === CHUNK) this.endChunk();
      const part = data.subarray(at, at + CHUNK - this.filled);
      this.bytes.set(part, this.filled);
      this.filled += part.length;
      at += part.length;
    }
    return this;
  }

  chunk(flags) {
    const value = IV.slice();
    this.bytes.fill(0, this.filled);
    const blocks = Math.max(1, Math.ceil(this.filled / BLOCK));
    for (let i = 0; i < blocks; i++) {
      const last = i === blocks - 1;
      const length = last ? this.filled - i * BLOCK : BLOCK;
      const own = (i ? 0 : CHUNK_START) | (last ? CHUNK_END | flags : 0);
      compress(value, this.words, i * 16, this.chunks, length, own);
    }
    return value;
  }

  endChunk() {
    let value = this.chunk(0);
    this.chunks++;
    // A subtree is complete for each bit of the count that has just become zero.
    for (let count = this.chunks; count % 2 === 0; count /= 2) value = parent(this.stack.pop(), value, 0);
    this.stack.push(value);
    this.filled = 0;
  }

  hex() {
    let value = this.chunk(this.stack.length ? 0 : ROOT);
    for (let i = this.stack.length - 1; i >= 0; i--) value = parent(this.stack[i], value, i ? 0 : ROOT);
    const bytes = new Uint8Array(value.buffer, 0, 32);
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}

const both = new Int32Array(16);

function parent(left, right, flags) {
  both.set(left);
  both.set(right, 8);
  const value = IV.slice();
  compress(value, both, 0, 0, BLOCK, PARENT | flags);
  return value;
}

export const digest = (data) => new Hasher().update(data).hex();
