// A trace in memory: records stay the bytes that they were written as, and are read field by field.

export const NO_EXPERT = 0xffff;

const READERS = {
  "|b1": (view, at) => view.getUint8(at),
  "<u2": (view, at) => view.getUint16(at, true),
  "<u4": (view, at) => view.getUint32(at, true),
  "<f4": (view, at) => view.getFloat32(at, true),
};
const WIDTHS = { "|b1": 1, "<u2": 2, "<u4": 4, "<f4": 4 };

export class Trace {
  // `opening`: the header, the layout of a record (fields, size), a title and facts of the text.
  constructor(opening) {
    Object.assign(this, opening);
    this.length = 0;
    this.texts = [];
    this.words = new Map();
    this.done = false;
    this.version = 0; // counts what has come, so that figures know when they are old
    this.room(64);
    this.readers = {};
    for (const [name, field] of Object.entries(opening.fields)) {
      const read = READERS[field.type];
      const width = WIDTHS[field.type];
      const { offset } = field;
      const size = opening.size;
      this.readers[name] = (token, index) => read(this.view, token * size + offset + index * width);
    }
    this.layers = this.header.experts.map((_, layer) => layer);
    this.routed = this.layers.filter((layer) => this.header.experts[layer] > 0);
    this.most = Math.max(0, ...this.header.experts);
    this.topk = this.header.experts_per_token;
  }

  room(tokens) {
    if (this.bytes && this.bytes.length >= tokens * this.size) return;
    const bytes = new Uint8Array(Math.max(tokens, 2 * this.length) * this.size);
    if (this.bytes) bytes.set(this.bytes);
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }

  // Take in tokens: {texts, words} with their records as bytes.
  add(bytes, texts, words) {
    this.room(this.length + texts.length);
    this.bytes.set(bytes, this.length * this.size);
    for (const text of texts) this.texts.push(text);
    for (const token in words) this.words.set(Number(token), words[token]);
    this.length += texts.length;
    this.version += 1;
  }

  get(name, token, index = 0) {
    return this.readers[name](token, index);
  }

  // A field that has a value for each layer, or `several` for each.
  at(name, token, layer, place = 0) {
    const shape = this.fields[name].shape;
    return this.readers[name](token, shape.length > 1 ? layer * shape[1] + place : layer);
  }

  experts(token, layer) {
    const found = [];
    for (let place = 0; place < this.topk; place++) {
      const expert = this.at("experts", token, layer, place);
      if (expert !== NO_EXPERT) found.push({ expert, weight: this.at("weights", token, layer, place) });
    }
    return found;
  }

  // The expert of most weight; null where the token went to none.
  first(token, layer) {
    let best = null;
    let most = -Infinity;
    for (let place = 0; place < this.topk; place++) {
      const expert = this.at("experts", token, layer, place);
      if (expert === NO_EXPERT) continue;
      const weight = this.at("weights", token, layer, place);
      if (weight > most) [best, most] = [expert, weight];
    }
    return best;
  }

  read(token) {
    return this.get("read", token) === 1;
  }

  generated(token) {
    return this.get("generated", token) === 1;
  }

  word(token) {
    return this.words.get(token) ?? `#${token}`;
  }

  // Tokens that the model has read; the last of a text never is.
  get readUpTo() {
    let end = this.length;
    while (end > 0 && !this.read(end - 1)) end -= 1;
    return end;
  }
}

export function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const plain = atob(text);
  const bytes = new Uint8Array(plain.length);
  for (let i = 0; i < plain.length; i++) bytes[i] = plain.charCodeAt(i);
  return bytes;
}

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return the trace of a pack: all of it at once, as exports and replays have it.
export async function unpack(pack) {
  const trace = new Trace(pack);
  const { records, small, texts, words } = pack.tokens;
  const bytes = fromBase64(records);
  trace.add(small ? await inflate(bytes) : bytes, texts, words);
  trace.done = true;
  return trace;
}
