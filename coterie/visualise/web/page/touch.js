// A hand in the routing and what it does; and two texts side by side.

import { el, Canvas, Panel, table, theme, expertColour, PALETTE, replace, number, percent, plain } from "./dom.js";
import { divergence, loadOf, meanSurprise, rerouted } from "./figures.js";
import { asShown, Ribbon } from "./ribbon.js";

const cost = (nats) => nats.toFixed(4).replace("-", "−");

// What the page says of a text that is to be written.
export class WriteForm {
  // `write(ask)` sends it.
  constructor(model, write) {
    const field = (name, label, given) => [el("label", { for: `ask-${name}` }, label), el("input", { id: `ask-${name}`, ...given })];
    this.prompt = el("textarea", { id: "ask-prompt", rows: "3", "aria-label": "Prompt", placeholder: "What the text goes on from" });
    const { drawing } = model;
    const decimal = { type: "number", step: "any", min: "0" };
    const whole = { type: "number", min: "1" };
    this.fields = el("div", { class: "fields" },
      ...field("temperature", "temperature", { ...decimal, value: drawing.temperature }),
      ...field("max_tokens", "tokens", { ...whole, value: drawing.max_tokens, max: "20000" }),
      ...field("seed", "seed", { type: "number", min: "0", value: drawing.seed }),
      ...field("masked", "without experts", { placeholder: "1:5 2:0" }),
      ...field("forced", "always experts", { placeholder: "0:1" }),
      el("label", { for: "ask-step" }, "checkpoint"),
      el("select", { id: "ask-step" }, ...model.steps.map((step) => el("option", { value: step, selected: step === model.step }, `step ${plain(step)}`))));
    this.problem = el("p", { class: "problem", role: "alert" });
    this.node = el("form", {
      class: "write",
      onsubmit: (event) => {
        event.preventDefault();
        write(this.ask());
      },
    }, this.prompt, this.fields, el("p", { class: "controls" }, el("button", { type: "submit", class: "main" }, "Write")), this.problem);
  }

  value(name) {
    return this.fields.querySelector(`#ask-${name}`).value.trim();
  }

  ask() {
    const words = (name) => this.value(name).split(/[\s,]+/).filter(Boolean);
    const drawing = {};
    for (const name of ["temperature", "max_tokens", "seed"]) if (this.value(name) !== "") drawing[name] = Number(this.value(name));
    return { prompt: this.prompt.value, drawing, masked: words("masked"), forced: words("forced"), step: Number(this.value("step")) };
  }
}

// What experts are worth to a text, beside as many others drawn at random.
export class Effects {
  constructor({ measure }) {
    this.panel = new Panel("effects", "What a hand costs",
      "Cost: mean over the text's tokens of −log p with the hand, less the same without, nats; the text stays what it is. Controls: as many other experts of the same layers, drawn at random.");
    this.hand = el("input", { "aria-label": "experts to take away", placeholder: "1:5" });
    this.button = el("button", { type: "submit" }, "Measure");
    this.canvas = new Canvas("Cost of the hand for each token of the text", 110, (...given) => this.draw(...given));
    this.form = el("form", {
      class: "controls",
      onsubmit: (event) => {
        event.preventDefault();
        measure(this.hand.value.split(/[\s,]+/).filter(Boolean));
      },
    }, "Without experts ", this.hand, " ", this.button);
    this.panel.body.append(this.form, this.canvas.node);
    this.panel.say("Name an expert, and the text on show is read again without it.");
    this.canvas.node.hidden = true;
  }

  busy(is) {
    this.button.disabled = is;
    if (is) this.panel.say("The text is read again …");
  }

  show(found) {
    this.found = found;
    const controls = found.controls.map((each) => each.gain);
    const hand = [...found.masked.map((each) => `without ${each}`), ...found.forced.map((each) => `always ${each}`)].join(", ");
    const beside = controls.length
      ? ` As many others of the same layer, drawn ${controls.length} times, cost ${cost(controls.reduce((a, b) => a + b) / controls.length)} on average (${cost(Math.min(...controls))} to ${cost(Math.max(...controls))}).`
      : " The layer has too few other experts for a control.";
    const verdict = controls.length ? (found.gain > Math.max(...controls) ? " It is worth more here than any of those." : " It is worth no more here than others.") : "";
    this.panel.say(`${hand}: each of the ${plain(found.tokens)} tokens costs ${cost(found.gain)} nats more on average, from ${number(found.plain)} to ${number(found.plain + found.gain)}.${beside}${verdict}`);
    this.panel.tell(() => table("Cost of the hand and of its controls, nats a token", ["experts", "cost"], [
      [hand, number(found.gain)],
      ...found.controls.map((each) => [[...each.masked.map((one) => `control: without ${one}`), ...each.forced.map((one) => `control: always ${one}`)].join(", "), number(each.gain)]),
    ]));
    this.canvas.node.hidden = false;
    this.canvas.redraw();
  }

  draw(context, width, height) {
    if (!this.found) return;
    const look = theme();
    const { each } = this.found;
    const most = Math.max(0.1, ...each.map(Math.abs));
    const middle = height / 2;
    const wide = (width - 40) / each.length;
    each.forEach((gain, token) => {
      context.fillStyle = gain > 0 ? "#d55e00" : "#0072b2";
      const tall = (Math.abs(gain) / most) * (middle - 12);
      context.fillRect(40 + token * wide, gain > 0 ? middle - tall : middle, Math.max(wide - 0.5, 0.5), tall);
    });
    context.fillStyle = look.ink;
    context.fillRect(40, middle, width - 40, 1);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = look.soft;
    context.fillText(`+${number(most, 1)}`, 0, 14);
    context.fillText("0", 24, middle + 4);
    context.fillText(`−${number(most, 1)}`, 0, height - 6);
    context.fillText("costs more, token by token", 46, 10);
  }
}

// One text as each checkpoint of the run reads it.
export class Lapse {
  constructor({ ask }) {
    this.panel = new Panel("textlapse", "One text through the checkpoints",
      "Colour: the expert of first rank of each token at a checkpoint, which reads the text without a hand. Kept: |experts then ∩ experts at the last checkpoint| / k, mean over tokens; the dotted line is k / E, what routers that know nothing of each other share.");
    this.button = el("button", { type: "button", onclick: () => ask() }, "Read it with every checkpoint");
    this.slider = el("input", { type: "range", min: "0", value: "0", "aria-label": "checkpoint", oninput: () => this.frame(Number(this.slider.value)) });
    this.step = el("output");
    this.canvas = new Canvas("Share of the last checkpoint's experts that each checkpoint has, layer by layer", 170, (...given) => this.draw(...given));
    this.ribbon = el("p", { class: "ribbon", tabindex: "0", role: "region", "aria-label": "The text by the experts of one checkpoint" });
    this.parts = el("div", { hidden: true }, el("p", { class: "controls" }, "Checkpoint ", this.slider, " ", this.step), this.ribbon, this.canvas.node);
    this.panel.body.append(el("p", { class: "controls" }, this.button), this.parts);
    this.panel.say("The text on show is read by the run's checkpoints, one after the other: how did its routing come to be?");
  }

  show(found, trace) {
    Object.assign(this, { found, layer: this.layer ?? found.layers[0]?.layer });
    this.tokens = found.layers.length ? found.layers[0].experts[0].map((_, token) => el("span", {}, asShown(trace.texts[token]))) : [];
    replace(this.ribbon, ...this.tokens);
    this.parts.hidden = !found.layers.length;
    this.slider.max = found.steps.length - 1;
    this.frame(found.steps.length - 1);
    this.panel.tell(() => table("Experts kept, and surprise, at each checkpoint", ["step", ...found.layers.map(({ layer }) => `layer ${layer} kept`), "surprise, nats"],
      [...found.steps.map((step, i) => [plain(step), ...found.layers.map(({ kept }) => number(kept[i])), number(found.surprise[i])]),
        ["even, k / E", ...found.layers.map(({ even }) => number(even)), "–"]]));
  }

  update({ layer }) {
    this.layer = layer;
    if (this.found) this.frame(this.at);
  }

  frame(at) {
    this.at = at;
    this.slider.value = at;
    const { steps, layers, surprise } = this.found;
    const shown = layers.find((each) => each.layer === this.layer) ?? layers[0];
    this.step.textContent = `step ${plain(steps[at])}`;
    if (!shown) {
      this.panel.say("This model has no experts.");
      return;
    }
    this.tokens.forEach((node, token) => {
      const expert = shown.experts[at][token];
      node.className = expert < 0 ? "token" : `token e${expert % PALETTE.length}`;
    });
    this.panel.say(`At step ${plain(steps[at])} layer ${shown.layer} sent these ${plain(this.tokens.length)} tokens to ${percent(shown.kept[at])} of the experts that they have at step ${plain(steps.at(-1))} (by accident ${percent(shown.even)}); a token cost ${number(surprise[at], 2)} nats.${steps.length < 2 ? " The run keeps but this checkpoint: train.keep_every keeps more." : ""}`);
    this.canvas.redraw();
  }

  draw(context, width, height) {
    if (!this.found) return;
    const look = theme();
    const { steps, layers } = this.found;
    const x = (step) => 46 + ((step - steps[0]) / Math.max(steps.at(-1) - steps[0], 1)) * (width - 150);
    const y = (share) => 10 + (1 - share) * (height - 40);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      context.fillStyle = look.hair;
      context.fillRect(46, y(share), width - 150, 1);
      context.fillStyle = look.soft;
      context.fillText(percent(share), 4, y(share));
    }
    layers.forEach(({ layer, kept, even }, i) => {
      context.strokeStyle = context.fillStyle = expertColour(i + 4);
      context.lineWidth = layer === this.layer ? 3 : 1.5;
      for (const [line, dash] of [[kept, []], [steps.map(() => even), [2, 4]]]) {
        context.setLineDash(dash);
        context.beginPath();
        steps.forEach((step, place) => context.lineTo(x(step), y(line[place])));
        context.stroke();
      }
      context.setLineDash([]);
      context.fillRect(width - 92, 12 + 18 * i, 20, 3);
      context.fillStyle = look.ink;
      context.fillText(`layer ${layer}`, width - 66, 13 + 18 * i);
    });
    context.fillStyle = look.alert;
    context.fillRect(x(steps[this.at]), 10, 1.5, height - 40);
    context.fillStyle = look.soft;
    context.fillText(`step ${plain(steps[0])}`, 46, height - 12);
    context.textAlign = "right";
    context.fillText(`step ${plain(steps.at(-1))}`, width - 104, height - 12);
    context.textAlign = "left";
  }
}

// Two texts side by side, and where they part.
export class Compare {
  constructor({ setAt, texts, changed }) {
    this.texts = texts;
    this.panel = new Panel("compare", "Two texts side by side",
      "Parted: the first token that differs. Alike after it: share of later places with equal tokens. Rerouted: of the tokens before it, the share whose expert of most weight is another one. Load: count · E / Σ count.");
    this.selects = ["first text", "second text"].map((label) => el("select", { "aria-label": label, onchange: changed }));
    this.ribbons = [new Ribbon("First text", setAt), new Ribbon("Second text", setAt)];
    this.divergences = el("div");
    this.panel.body.append(
      el("div", { class: "pair" }, ...this.ribbons.map((ribbon, i) => el("div", {}, el("p", { class: "controls" }, i ? "B " : "A ", this.selects[i]), ribbon.node))),
      el("h3", {}, "Where the texts part from A"), this.divergences);
  }

  // Which text stands on a side; `side` 0: A, 1: B.
  choose(side, id) {
    this.chosen = this.chosen ?? [];
    this.chosen[side] = id;
  }

  update({ colouring, layer, at }) {
    const texts = [...this.texts()].sort((one, other) => one.id - other.id); // several come at once
    if (!texts.length) return;
    this.selects.forEach((select, side) => {
      const value = this.chosen?.[side] ?? (Number(select.value) || texts[Math.min(side, texts.length - 1)].id);
      replace(select, ...texts.map((each) => el("option", { value: each.id, selected: each.id === value }, `${each.id} · ${each.title}`)));
      select.value = String(value);
    });
    this.chosen = null;
    const [one, other] = this.selects.map((select) => texts.find((each) => String(each.id) === select.value));
    const { first, alike } = divergence(one, other);
    this.ribbons[0].update(one, { colouring, layer, at, parted: one === other ? null : first });
    this.ribbons[1].update(other, { colouring, layer, at, parted: one === other ? null : first });
    this.panel.say(one === other ? "Choose another text for B, or write one: another prompt, another checkpoint, a hand in the routing."
      : `${first === null ? "The texts are the same" : `They part at token ${plain(first + 1)}; after it ${percent(alike)} of the places are alike`}. Mean surprise of what was generated: ${number(meanSurprise(one, { phase: "generated" }), 2)} (A), ${number(meanSurprise(other, { phase: "generated" }), 2)} nats (B).`);
    replace(this.divergences, table("Where the texts part from A", ["text", "parted at token", "alike after it", ...one.routed.map((each) => `rerouted, layer ${each}`)],
      texts.filter((each) => each !== one).map((each) => {
        const found = divergence(one, each);
        return [`${each.id} · ${each.title}`, found.first === null ? "same" : plain(found.first + 1), percent(found.alike),
          ...one.routed.map((layer_) => (each.header.experts[layer_] === one.header.experts[layer_] ? percent(rerouted(one, each, layer_).share) : "–"))];
      })));
    this.panel.tell(() => table("Load of each expert in both texts", ["expert", "A", "B", "B − A"], one.routed
      .filter((each) => other.header.experts[each] === one.header.experts[each])
      .flatMap((each) => {
        const [a, b] = [loadOf(one, each), loadOf(other, each)];
        return Array.from(a.share, (share, expert) => [`${each}:${expert}`, number(share, 2), number(b.share[expert], 2), number(b.share[expert] - share, 2)]);
      })));
  }
}
