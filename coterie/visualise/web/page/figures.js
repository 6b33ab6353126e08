// What a trace says, in numbers; each panel shows what one function here returns, and nothing else.
// The unit is (layer, expert): nothing is pooled over layers. A token counts by its weights there,
// divided by their sum; where membership alone is meant, the name says so. Even use is 1.

export const DEAD = 0.01;
export const HOT = 2;
export const LEAST_SEEN = 3; // tokens of a kind, before it is called a favourite
export const DEALS = 99; // of labels at random, beside which information is set
export const PHASES = { prompt: false, generated: true };

// Places of the tokens from `from` to before `to` that were read, of one phase or of both (null).
export function readTokens(trace, { from = 0, to = trace.length, phase = null } = {}) {
  const found = [];
  for (let token = from; token < Math.min(to, trace.length); token++) {
    if (!trace.read(token)) continue;
    if (phase !== null && trace.generated(token) !== PHASES[phase]) continue;
    found.push(token);
  }
  return found;
}

// {tokens, share, weight, dead, hot}: count · E / Σ count and Σ weight · E / ΣΣ weight.
export function loadOf(trace, layer, range = {}) {
  const count = trace.header.experts[layer];
  const drawn = new Float64Array(count);
  const mass = new Float64Array(count);
  const tokens = readTokens(trace, range);
  for (const token of tokens) {
    const some = trace.experts(token, layer);
    const total = some.reduce((sum, each) => sum + each.weight, 0);
    for (const { expert, weight } of some) {
      drawn[expert] += 1;
      if (total > 0) mass[expert] += weight / total;
    }
  }
  const even = (sums) => {
    const all = sums.reduce((sum, each) => sum + each, 0);
    return sums.map((each) => (each * count) / Math.max(all, 1e-30));
  };
  const share = even(drawn);
  const flagged = (test) => [...share.keys()].filter((expert) => tokens.length && test(share[expert]));
  return {
    layer, tokens: tokens.length, share, weight: even(mass),
    dead: flagged((each) => each < DEAD), hot: flagged((each) => each >= HOT),
  };
}

export function quantile(values, share) {
  const sorted = [...values].filter((each) => !Number.isNaN(each)).sort((a, b) => a - b);
  if (!sorted.length) return NaN;
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

export const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;

// How sure a layer's router was: margins, and −Σ s log s / log E of its shares, mean.
export function routerOf(trace, layer, range = {}) {
  const tokens = readTokens(trace, range);
  const margins = tokens.map((token) => trace.at("margin", token, layer));
  const count = trace.header.experts[layer];
  const entropy = tokens.map((token) => {
    let sum = 0;
    for (let expert = 0; expert < count; expert++) {
      const share = trace.at("shares", token, layer, expert);
      if (share > 0) sum -= share * Math.log(share);
    }
    return sum / Math.max(Math.log(count), 1e-30);
  });
  return {
    layer, margins, median: quantile(margins, 0.5), low: quantile(margins, 0.1),
    negative: margins.filter((each) => each < 0).length / Math.max(margins.length, 1),
    entropy: mean(entropy),
  };
}

export function meanSurprise(trace, range = {}) {
  const { from = 0, to = trace.length } = range;
  const known = [];
  for (let token = from; token < Math.min(to, trace.length); token++) {
    if (range.phase != null && trace.generated(token) !== PHASES[range.phase]) continue;
    const surprise = trace.get("surprise", token);
    if (!Number.isNaN(surprise)) known.push(surprise);
  }
  return known.length ? mean(known) : NaN;
}

// [E][E] how often both were selected over how often, were each independent of the other; NaN
// where one never was. `even`: what equally likely sets of experts would give.
export function together(trace, layer, range = {}) {
  const count = trace.header.experts[layer];
  const own = new Float64Array(count);
  const both = Array.from({ length: count }, () => new Float64Array(count));
  const tokens = readTokens(trace, range);
  for (const token of tokens) {
    const some = trace.experts(token, layer).map((each) => each.expert);
    for (const one of some) {
      own[one] += 1;
      for (const other of some) if (one !== other) both[one][other] += 1;
    }
  }
  const lift = both.map((row, one) =>
    Array.from(row, (each, other) => {
      const expected = (own[one] * own[other]) / Math.max(tokens.length, 1);
      return one === other || expected === 0 ? NaN : each / expected;
    }));
  const k = trace.topk;
  return { lift, both, own, even: ((k - 1) * count) / (k * Math.max(count - 1, 1)) };
}

// What a token looks like, for hypotheses that a reader can check by eye.
export function kindOf(text) {
  if (text === "") return "part of a character";
  if (/^\n+$/.test(text)) return "line break";
  if (/^\s+$/u.test(text)) return "blank";
  if (/^[\s]*[\p{P}\p{S}]+[\s]*$/u.test(text)) return "punctuation";
  if (/^\s*\p{N}+$/u.test(text)) return "number";
  if (/^\s*\p{Lu}/u.test(text)) return "capital";
  if (/^[aeiouyAEIOUY]$/.test(text)) return "vowel";
  if (/^\p{L}$/u.test(text)) return "consonant";
  if (/^\s/u.test(text)) return "begins a word";
  return "inside a word";
}

export const LABELS = {
  token: (trace, token) => trace.get("token", token),
  kind: (trace, token) => kindOf(trace.word(trace.get("token", token))),
  place: (trace, token) => Math.min(7, Math.floor((8 * token) / Math.max(trace.length, 1))),
};
export const LABEL_WORDS = { token: "which token it is", kind: "what kind it is", place: "where it stands (eighths of the text)" };

// A small generator, so that the same trace is dealt the same way each time.
export function dealer(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffle(values, random) {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [values[i], values[j]] = [values[j], values[i]];
  }
}

// For each expert e of a layer, D(p(x | e) ‖ p(x)) in nats: how unlike its tokens' labels are to
// all; weighted by the experts' shares of weight they sum to the mutual information I(x; e).
// Beside it the mean over deals of the labels at random, and the share of deals giving as much (p).
export function informationOf(trace, layer, label, { deals = DEALS, range = {} } = {}) {
  const tokens = readTokens(trace, range);
  const count = trace.header.experts[layer];
  const index = new Map();
  const labels = Int32Array.from(tokens, (token) => {
    const value = LABELS[label](trace, token);
    if (!index.has(value)) index.set(value, index.size);
    return index.get(value);
  });
  const kinds = index.size;
  const rows = tokens.map((token) => {
    const some = trace.experts(token, layer);
    const total = some.reduce((sum, each) => sum + each.weight, 0);
    return total > 0 ? some.map(({ expert, weight }) => [expert, weight / total]) : [];
  });
  const share = new Float64Array(count);
  const all = new Float64Array(kinds);
  let sum = 0;
  rows.forEach((row, i) => row.forEach(([expert, weight]) => {
    share[expert] += weight;
    sum += weight;
  }));
  const measure = (of) => {
    const joint = new Float64Array(count * kinds);
    all.fill(0);
    rows.forEach((row, i) => row.forEach(([expert, weight]) => {
      joint[expert * kinds + of[i]] += weight;
      all[of[i]] += weight;
    }));
    const found = new Float64Array(count);
    for (let expert = 0; expert < count; expert++) {
      if (share[expert] <= 0) continue;
      for (let kind = 0; kind < kinds; kind++) {
        const own = joint[expert * kinds + kind] / share[expert];
        if (own > 0) found[expert] += own * Math.log((own * sum) / all[kind]);
      }
    }
    return found;
  };
  const measured = measure(labels);
  const random = dealer(1 + layer);
  const dealt = labels.slice();
  const null_ = new Float64Array(count);
  const asMuch = new Float64Array(count);
  let asMuchAltogether = 0;
  let nullAltogether = 0;
  const altogether = (each) => each.reduce((total, one, expert) => total + (one * share[expert]) / Math.max(sum, 1e-30), 0);
  const whole = altogether(measured);
  for (let deal = 0; deal < deals; deal++) {
    shuffle(dealt, random);
    const found = measure(dealt);
    found.forEach((each, expert) => {
      null_[expert] += each / deals;
      if (each >= measured[expert] - 1e-12) asMuch[expert] += 1;
    });
    nullAltogether += altogether(found) / deals;
    if (altogether(found) >= whole - 1e-12) asMuchAltogether += 1;
  }
  return {
    experts: Array.from(measured, (nats, expert) => ({
      nats, null: null_[expert], p: (1 + asMuch[expert]) / (1 + deals),
    })),
    layer: { nats: whole, null: nullAltogether, p: (1 + asMuchAltogether) / (1 + deals) },
  };
}

// What one expert did: favourites and kinds by lift (its share of a label's weight over its share
// of all), partners by lift, mean relative position by weight.
export function cardOf(trace, layer, expert, range = {}) {
  const tokens = readTokens(trace, range);
  const sums = { token: new Map(), kind: new Map() };
  let own = 0;
  let place = 0;
  const last = Math.max(1, ...tokens.slice(-1).map((token) => trace.get("position", token)));
  for (const token of tokens) {
    const some = trace.experts(token, layer);
    const total = some.reduce((sum, each) => sum + each.weight, 0);
    const weight = total > 0 ? (some.find((each) => each.expert === expert)?.weight ?? 0) / total : 0;
    own += weight;
    place += (weight * trace.get("position", token)) / last;
    for (const name of ["token", "kind"]) {
      const value = LABELS[name](trace, token);
      const entry = sums[name].get(value) ?? { value, seen: 0, weight: 0 };
      entry.seen += 1;
      entry.weight += weight;
      sums[name].set(value, entry);
    }
  }
  const share = own / Math.max(tokens.length, 1);
  const ranked = (name) =>
    [...sums[name].values()]
      .map((each) => ({ ...each, lift: each.weight / each.seen / Math.max(share, 1e-30) }))
      .filter((each) => each.seen >= LEAST_SEEN && each.lift > 1)
      .sort((a, b) => b.lift - a.lift);
  const load = loadOf(trace, layer, range);
  const { lift } = together(trace, layer, range);
  const partners = Array.from(lift[expert], (each, other) => ({ other, lift: each }))
    .filter((each) => each.lift > 0)
    .sort((a, b) => b.lift - a.lift);
  return {
    layer, expert, share: load.share[expert], weight: load.weight[expert], tokens: tokens.length,
    favourites: ranked("token"), kinds: ranked("kind"), partners,
    position: own > 0 ? place / own : NaN,
  };
}

// One line on what an expert may be doing, from its card and its information; or that nothing shows.
export function hypothesisOf(card, information) {
  const sure = (name) => information[name].p <= 0.01 && information[name].nats > 2 * information[name].null;
  if (!(card.share > 0)) return "no token went to it in this text";
  if (sure("kind") && card.kinds.length) {
    const [first, second] = card.kinds;
    const more = second && second.lift > 1.3 ? ` and ${second.value}` : "";
    return `perhaps ${first.value}${more} (×${first.lift.toFixed(1)})`;
  }
  if (sure("token") && card.favourites.length) return "perhaps certain tokens, see its favourites";
  if (sure("place")) return `perhaps ${card.position < 0.5 ? "early" : "late"} places (mean ${card.position.toFixed(2)})`;
  return "nothing beyond chance shows in this text";
}

// Where two texts part: the first token that differs, and the share of places alike after that.
export function divergence(one, other) {
  const least = Math.min(one.length, other.length);
  let first = 0;
  while (first < least && one.get("token", first) === other.get("token", first)) first += 1;
  let alike = 0;
  for (let token = first; token < least; token++) {
    if (one.get("token", token) === other.get("token", token)) alike += 1;
  }
  const same = first === least && one.length === other.length;
  return { first: same ? null : first, alike: least > first ? alike / (least - first) : 1, compared: least };
}

// Of the tokens that both texts share from their beginning, the share whose expert of most weight
// in a layer is another one.
export function rerouted(one, other, layer) {
  const { first, compared } = divergence(one, other);
  const end = Math.min(first ?? compared, one.readUpTo, other.readUpTo);
  let moved = 0;
  for (let token = 0; token < end; token++) {
    if (one.first(token, layer) !== other.first(token, layer)) moved += 1;
  }
  return { tokens: end, share: end ? moved / end : NaN };
}
