// Panels of one token, and of all tokens so far: each shows figures of `figures.js`, says them in
// words, and names its formula.

import { el, Canvas, Panel, table, theme, expertColour, replace, quoted, number, percent, plain, ramp } from "./dom.js";
import { loadOf, routerOf, meanSurprise, HOT, PHASES } from "./figures.js";

const tokenOf = (trace, token) => quoted(trace.word(token));

export class Candidates {
  constructor() {
    this.panel = new Panel("candidates", "What it was chosen from",
      "Left: p by the model, softmax of its logits. Right: p drawn from, after bias, constraints, temperature and truncation. surprise = −log p; ◂: what came.");
  }

  update(trace, { at }) {
    const rows = [];
    for (let row = 0; row < trace.header.candidates; row++) {
      const cells = [];
      for (const name of ["before", "after"]) {
        const chance = trace.get(`${name}_p`, at, row);
        const token = trace.get(name, at, row);
        cells.push(chance > 0 ? { chance, token, came: token === trace.get("token", at) } : null);
      }
      if (cells.some(Boolean)) rows.push(cells);
    }
    const bar = (cell) =>
      cell === null ? el("td") : el("td", { class: "bar" },
        el("span", { class: "fill", style: { width: `${100 * cell.chance}%` } }),
        el("span", { class: cell.came ? "came" : "" }, `${tokenOf(trace, cell.token)} ${cell.came ? "◂ " : ""}`),
        el("span", { class: "figure" }, number(cell.chance)));
    replace(this.panel.body, el("table", { class: "bars" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "by the model"), el("th", { scope: "col" }, "drawn from"))),
      el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map(bar))))));
    const surprise = trace.get("surprise", at);
    const allowed = trace.get("allowed", at);
    const text = Number.isNaN(surprise) ? "The first token follows nothing, so nothing was expected of it."
      : `The model gave ${tokenOf(trace, trace.get("token", at))} a chance of ${percent(Math.exp(-surprise))}`
        + ` (surprise ${number(surprise, 2)} nats; a uniform guess has ${number(Math.log(trace.header.vocabulary), 2)})`
        + (allowed ? `; ${plain(allowed)} of ${plain(trace.header.vocabulary)} tokens could be drawn.` : ".");
    this.panel.say(text);
    this.panel.tell(() => table("Surprise and entropy of this place, nats", ["figure", "value"], [
      ["surprise", number(surprise)], ["entropy", number(trace.get("entropy", at))], ["tokens left", plain(allowed)],
    ]));
  }
}

export class Lens {
  constructor() {
    this.panel = new Panel("lens", "What each layer would say next",
      "Logit lens: softmax(head(norm(x))) of the stream x after each layer (nostalgebraist 2020). Counted n-grams have no part in it.");
  }

  update(trace, { at }) {
    if (!trace.header.lens || !trace.read(at)) {
      replace(this.panel.body);
      this.panel.say(trace.header.lens ? "This token was not read any more." : "The lens was not recorded.");
      this.panel.tell(() => []);
      return;
    }
    const next = at + 1 < trace.length ? trace.get("token", at + 1) : null;
    const rows = trace.layers.map((layer) => {
      const cells = [];
      for (let place = 0; place < trace.header.lens; place++) {
        const chance = trace.at("lens_p", at, layer, place);
        if (!(chance > 0)) continue;
        const token = trace.at("lens", at, layer, place);
        cells.push({ token, chance });
      }
      return cells;
    });
    replace(this.panel.body, el("table", { class: "lens" },
      el("tbody", {}, ...trace.layers.map((layer) => el("tr", {}, el("th", { scope: "row" }, `layer ${layer}`),
        ...rows[layer].map(({ token, chance }) => {
          const cell = el("td", { style: { "background-color": ramp(chance) } }, `${tokenOf(trace, token)}${token === next ? " ◂" : ""} `, el("span", { class: "figure" }, number(chance, 2)));
          if (chance > 0.55) cell.classList.add("strong");
          return cell;
        }))))));
    const first = trace.layers.find((layer) => rows[layer][0]?.token === next);
    this.panel.say(next === null ? "Nothing came after this token yet."
      : first === undefined ? `No layer's likeliest was ${tokenOf(trace, next)}, which came.`
        : `${tokenOf(trace, next)}, which came, is the likeliest from layer ${first} on at the earliest.`);
    this.panel.tell(() => table("Likeliest next token after each layer", ["layer", "tokens: p"],
      trace.layers.map((layer) => [`layer ${layer}`, rows[layer].map(({ token, chance }) => `${tokenOf(trace, token)} ${number(chance)}`).join("  ")])));
  }
}

export class Stream {
  constructor() {
    this.panel = new Panel("stream", "The residual stream, by part",
      "‖·‖: Euclidean norms of the stream after the layer, and of what attention and the experts (or MLP) returned, before any gate of the block layout.");
    this.canvas = new Canvas("Norms of the stream and of its parts, layer by layer", 120, (...given) => this.draw(...given));
    this.panel.body.append(this.canvas.node);
  }

  update(trace, { at }) {
    Object.assign(this, { trace, at });
    this.canvas.resize(28 + 46 * trace.layers.length);
    this.canvas.redraw();
    if (!trace.read(at)) {
      this.panel.say("This token was not read any more.");
      this.panel.tell(() => []);
      return;
    }
    const added = trace.layers.map((layer) => trace.at("feedforward", at, layer) / trace.at("residual", at, layer));
    const most = added.indexOf(Math.max(...added));
    this.panel.say(`In layer ${most} the experts or MLP returned most for their stream: ${number(trace.at("feedforward", at, most), 2)} beside ${number(trace.at("residual", at, most), 2)} (${percent(added[most])}).`);
    this.panel.tell(() => table("Norms", ["layer", "‖x‖", "attention", "experts or MLP"], trace.layers.map((layer) =>
      [`layer ${layer}`, ...["residual", "attention", "feedforward"].map((name) => number(trace.at(name, at, layer)))])));
  }

  draw(context, width) {
    const { trace, at } = this;
    if (!trace || !trace.read(at)) return;
    const look = theme();
    const parts = [["residual", "stream", look.soft], ["attention", "attention", "#56b4e9"], ["feedforward", "experts or MLP", "#e69f00"]];
    const most = Math.max(...trace.layers.flatMap((layer) => parts.map(([name]) => trace.at(name, at, layer) || 0)));
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    let x = 64;
    for (const [, word, colour] of parts) {
      context.fillStyle = colour;
      context.fillRect(x, 5, 10, 10);
      context.fillStyle = look.ink;
      context.fillText(word, x + 15, 11);
      x += 34 + context.measureText(word).width;
    }
    trace.layers.forEach((layer, row) => {
      const y = 28 + 46 * row;
      context.fillStyle = look.soft;
      context.fillText(`layer ${layer}`, 0, y + 18);
      parts.forEach(([name, , colour], i) => {
        const value = trace.at(name, at, layer);
        context.fillStyle = colour;
        context.fillRect(64, y + 12 * i, ((width - 120) * value) / most, 9);
        context.fillStyle = look.ink;
        context.fillText(number(value, 2), 68 + ((width - 120) * value) / most, y + 12 * i + 5);
      });
    });
  }
}

export class Attention {
  constructor() {
    this.panel = new Panel("attention", "Where it looks back to",
      "The three keys of most weight, averaged over heads; entropy −Σ a log a in nats of all its weights (0: one key; log T: all alike).");
  }

  update(trace, { at }) {
    const rows = trace.layers.map((layer) => {
      const found = [];
      for (let place = 0; place < trace.fields.attended.shape[1]; place++) {
        const chance = trace.at("attended_p", at, layer, place);
        if (chance > 0) found.push({ back: trace.at("attended", at, layer, place), chance });
      }
      return found;
    });
    const known = trace.read(at) && rows.some((row) => row.length);
    const span = 32;
    replace(this.panel.body, ...(known ? trace.layers.map((layer) => {
      const line = el("p", { class: "looks" }, el("span", { class: "name" }, `layer ${layer}`));
      const weights = new Map(rows[layer].map(({ back, chance }) => [at - back, chance]));
      const from = Math.max(0, Math.min(at - span, ...weights.keys()));
      const shown = at - from > 2 * span ? [...weights.keys(), at].sort((a, b) => a - b) : Array.from({ length: at - from + 1 }, (_, i) => from + i);
      let before = null;
      for (const token of new Set(shown)) {
        if (before !== null && token !== before + 1) line.append(" … ");
        before = token;
        const chance = weights.get(token) ?? 0;
        const cell = el("span", { class: "look" }, quoted(trace.word(trace.get("token", token)), 12).slice(1, -1));
        if (chance) {
          cell.style.setProperty("background-color", ramp(chance));
          if (chance > 0.55) cell.classList.add("strong");
          cell.title = percent(chance);
        }
        if (token === at) cell.classList.add("here");
        line.append(cell);
      }
      return line;
    }) : []));
    const lead = rows.map((row, layer) => row[0] && `${row[0].back ? `${plain(row[0].back)} ${row[0].back === 1 ? "token" : "tokens"} back` : "at itself"} in layer ${layer} (${percent(row[0].chance)})`).filter(Boolean);
    this.panel.say(known ? `Of all, it looks most ${lead.join(", ")}.` : "Of this attention, or this token, it is not known where it looks.");
    this.panel.tell(() => table("Keys of most weight", ["layer", "entropy", "tokens back: weight"], trace.layers.map((layer) => [
      `layer ${layer}`, number(trace.at("attention_entropy", at, layer)),
      rows[layer].map(({ back, chance }) => `−${back}: ${number(chance)}`).join("  "),
    ])));
  }
}

export class Now {
  constructor({ chooseExpert }) {
    this.chooseExpert = chooseExpert;
    this.panel = new Panel("now", "Experts × layers, for this token",
      "Share: the router's scores as shares of one. Frame: selected, with its weight. Margin: least ranked score selected − best one not, selection bias included; below 0: a hand overruled the router.");
  }

  update(trace, { at, layer: chosenLayer, expert: chosenExpert }) {
    if (!trace.routed.length || !trace.read(at)) {
      replace(this.panel.body);
      this.panel.say("No router decided on this token.");
      this.panel.tell(() => []);
      return;
    }
    const lines = trace.routed.map((layer) => {
      const weights = new Map(trace.experts(at, layer).map(({ expert, weight }) => [expert, weight]));
      const cells = [];
      for (let expert = 0; expert < trace.most; expert++) {
        if (expert >= trace.header.experts[layer]) {
          cells.push(el("td"));
          continue;
        }
        const share = trace.at("shares", at, layer, expert);
        const weight = weights.get(expert);
        const told = weight === undefined ? `share ${number(share, 2)}, not selected` : `share ${number(share, 2)}, weight ${number(weight, 2)}`;
        const button = el("button", {
          type: "button", title: `expert ${layer}:${expert}: ${told}`, "aria-label": `expert ${expert} of layer ${layer}: ${told}`,
          "aria-pressed": String(layer === chosenLayer && expert === chosenExpert),
          onclick: () => this.chooseExpert(layer, expert),
          style: { "background-color": ramp(share) },
        }, weight === undefined ? number(share, 2).slice(1) : number(weight, 2));
        if (weight !== undefined) {
          button.classList.add("selected");
          button.style.setProperty("border-color", expertColour(expert));
        }
        if (share > 0.55) button.classList.add("strong");
        cells.push(el("td", {}, button));
      }
      return el("tr", {}, el("th", { scope: "row" }, `layer ${layer}`), ...cells, el("td", { class: "figure" }, number(trace.at("margin", at, layer))));
    });
    replace(this.panel.body, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Experts and layers for this token" },
      el("table", { class: "now" },
        el("thead", {}, el("tr", {}, el("td"), ...Array.from({ length: trace.most }, (_, expert) => el("th", { scope: "col" }, expert)), el("th", { scope: "col" }, "margin"))),
        el("tbody", {}, ...lines))));
    const closest = trace.routed.reduce((a, b) => (Math.abs(trace.at("margin", at, b)) < Math.abs(trace.at("margin", at, a)) ? b : a));
    this.panel.say(`Closest call in layer ${closest}: ${number(trace.at("margin", at, closest))} more of score and another expert would have had this token. Uniform shares would be ${[...new Set(trace.routed.map((layer) => number(1 / trace.header.experts[layer])))].join(", ")}.`);
    this.panel.tell(() => table("Shares of the routers", ["expert", ...Array.from({ length: trace.most }, (_, expert) => String(expert))],
      trace.routed.map((layer) => [`layer ${layer}`, ...Array.from({ length: trace.most }, (_, expert) => number(trace.at("shares", at, layer, expert)))])));
  }
}

export class Load {
  constructor({ chooseExpert }) {
    this.panel = new Panel("load", "Load of each expert",
      "Load: count · E / Σ count; weight: Σ weight · E / ΣΣ weight, of the prompt and of what was generated by themselves. The line is 1.00, fair; ✗ dead: below 0.01; ▲ hot: 2 or more.", { open: false });
    this.canvas = new Canvas("Load of each expert beside the fair line, prompt and generated tokens apart", 100, (...given) => this.draw(...given));
    this.canvas.node.addEventListener("click", (event) => {
      const hit = this.bars?.find((bar) => event.offsetX >= bar.x && event.offsetX < bar.x + bar.w && event.offsetY >= bar.y && event.offsetY < bar.y + bar.h);
      if (hit) chooseExpert(hit.layer, hit.expert);
    });
    this.panel.body.append(this.canvas.node);
  }

  update(trace, { brush, layer, expert }) {
    this.chosen = [layer, expert];
    const range = brush ? { from: brush[0], to: brush[1] } : {};
    this.trace = trace;
    this.loads = trace.routed.map((each) => Object.fromEntries(Object.keys(PHASES).map((phase) => [phase, loadOf(trace, each, { ...range, phase })])));
    this.canvas.resize(26 + 84 * trace.routed.length);
    this.canvas.redraw();
    const whole = trace.routed.map((each) => loadOf(trace, each, range));
    const peak = whole.map((load) => ({ layer: load.layer, expert: load.share.indexOf(Math.max(...load.share)), share: Math.max(...load.share) }))
      .reduce((a, b) => (b.share > a.share ? b : a), { share: 0 });
    const dead = whole.flatMap((load) => load.dead.map((each) => `${load.layer}:${each}`));
    const where = brush ? `In tokens ${plain(brush[0] + 1)} to ${plain(brush[1])}` : `Over ${plain(whole[0]?.tokens ?? 0)} tokens`;
    this.panel.say(!whole.length ? "This model has no experts." : `${where}, the busiest expert is ${peak.layer}:${peak.expert} with ${number(peak.share, 2)} times its fair share; ${dead.length ? `no token went to ${dead.slice(0, 8).join(", ")}${dead.length > 8 ? " and more" : ""}` : "none is dead"}.`);
    this.panel.tell(() => table("Load (and weight) of each expert, over even ones", ["layer, phase", "tokens", ...Array.from({ length: trace.most }, (_, each) => String(each))],
      this.loads.flatMap((phases, i) => Object.entries(phases).filter(([, load]) => load.tokens).flatMap(([phase, load]) => [
        [`${trace.routed[i]} ${phase} load`, plain(load.tokens), ...Array.from(load.share, (share, each) => number(share, 2) + (load.dead.includes(each) ? "✗" : load.hot.includes(each) ? "▲" : ""))],
        [`${trace.routed[i]} ${phase} weight`, "", ...Array.from(load.weight, (share) => number(share, 2))],
      ]))));
  }

  draw(context, width) {
    const { trace } = this;
    if (!trace?.routed.length) return;
    const look = theme();
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = look.soft;
    context.fillText("left half: prompt; right half: generated", 56, 8);
    this.bars = [];
    const high = 54;
    trace.routed.forEach((layer, row) => {
      const top = 24 + 84 * row;
      const count = trace.header.experts[layer];
      const cell = (width - 56) / count;
      const scale = (share) => Math.min(share / (1.25 * HOT), 1) * high;
      context.fillStyle = look.soft;
      context.textAlign = "left";
      context.fillText(`layer ${layer}`, 0, top + high + 9);
      for (let expert = 0; expert < count; expert++) {
        const x = 56 + expert * cell;
        this.bars.push({ layer, expert, x, y: top, w: cell, h: high + 16 });
        Object.keys(PHASES).forEach((phase, half) => {
          const load = this.loads[row][phase];
          if (!load.tokens) return;
          const tall = scale(load.share[expert]);
          context.globalAlpha = half ? 1 : 0.5;
          context.fillStyle = expertColour(expert);
          context.fillRect(x + 1 + (half * (cell - 4)) / 2, top + high - tall, (cell - 4) / 2, Math.max(tall, 1));
        });
        context.globalAlpha = 1;
        const flags = Object.values(this.loads[row]).filter((load) => load.tokens);
        const flag = flags.some((load) => load.hot.includes(expert)) ? "▲" : flags.length && flags.every((load) => load.dead.includes(expert)) ? "✗" : "";
        context.textAlign = "center";
        context.fillStyle = flag ? look.alert : look.soft;
        if (cell >= 12 || flag) context.fillText(`${expert}${flag}`, x + cell / 2 - 1, top + high + 9);
        if (layer === this.chosen[0] && expert === this.chosen[1]) {
          context.strokeStyle = look.accent;
          context.lineWidth = 2;
          context.strokeRect(x, top - 1, cell - 2, high + 18);
        }
      }
      context.strokeStyle = look.ink;
      context.lineWidth = 1;
      context.setLineDash([4, 3]);
      context.beginPath();
      context.moveTo(56, top + high - scale(1));
      context.lineTo(width, top + high - scale(1));
      context.stroke();
      context.setLineDash([]);
      context.textAlign = "left";
      context.fillStyle = look.ink;
      context.fillText("fair", 30, top + high - scale(1));
    });
  }
}

export class Margins {
  constructor() {
    this.panel = new Panel("margins", "How sure the routers were",
      "Margin: least ranked score selected − best one not, selection bias included. Entropy: −Σ s log s / log E of the shares, mean; 1 is undecided.");
    this.canvas = new Canvas("Margins of each layer as a histogram", 100, (...given) => this.draw(...given));
    this.panel.body.append(this.canvas.node);
  }

  update(trace, { brush }) {
    this.trace = trace;
    const range = brush ? { from: brush[0], to: brush[1] } : {};
    this.routers = trace.routed.map((layer) => routerOf(trace, layer, range));
    this.canvas.resize(22 + 58 * trace.routed.length);
    this.canvas.redraw();
    const least = this.routers.reduce((a, b) => (b.median < a.median ? b : a), this.routers[0]);
    this.panel.say(least ? `Layer ${least.layer} decides most narrowly: half of its margins lie below ${number(least.median)}. Mean surprise of these tokens: ${number(meanSurprise(trace, range), 2)} nats.` : "This model has no experts.");
    this.panel.tell(() => table("Routers", ["layer", "margin, median", "10 %", "negative", "entropy, mean"],
      this.routers.map((each) => [`layer ${each.layer}`, number(each.median), number(each.low), percent(each.negative), number(each.entropy)])));
  }

  draw(context, width) {
    const look = theme();
    const all = (this.routers ?? []).flatMap((each) => each.margins).filter((each) => !Number.isNaN(each));
    if (!all.length) return;
    const low = Math.min(0, all.reduce((a, b) => Math.min(a, b)));
    const high = Math.max(all.reduce((a, b) => Math.max(a, b)), low + 1e-9);
    const bins = Math.max(12, Math.min(60, Math.floor((width - 56) / 9)));
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.routers.forEach((router, row) => {
      const [base, tall] = [52 + 58 * row, 42];
      const counts = new Array(bins).fill(0);
      for (const each of router.margins) counts[Math.min(bins - 1, Math.floor(((each - low) / (high - low)) * bins))] += 1;
      const most = Math.max(...counts, 1);
      const wide = (width - 60) / bins;
      context.fillStyle = look.soft;
      context.fillText(`layer ${router.layer}`, 0, base - tall / 2);
      counts.forEach((count, bin) => {
        context.fillStyle = look.accent;
        context.fillRect(56 + bin * wide, base - (tall * count) / most, wide - 1, (tall * count) / most);
      });
      const x = 56 + ((router.median - low) / (high - low)) * (width - 60);
      context.fillStyle = look.alert;
      context.fillRect(x, base - tall, 2, tall);
      context.fillStyle = look.hair;
      context.fillRect(56, base, width - 60, 1);
    });
    const foot = 14 + 58 * this.routers.length;
    context.fillStyle = look.soft;
    context.fillText(number(low), 56, foot);
    context.textAlign = "right";
    context.fillText(number(high), width - 4, foot);
    context.textAlign = "left";
    context.fillText("line: median", 110, foot);
  }
}
