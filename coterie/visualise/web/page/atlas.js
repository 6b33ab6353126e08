// What each expert does: an atlas with evidence and chance beside it, the card of one, and who is
// selected together. Roles are hypotheses about this text, no more.

import { el, Canvas, Panel, table, theme, expertColour, replace, quoted, number, plain } from "./dom.js";
import { cardOf, informationOf, hypothesisOf, together, LABELS, LABEL_WORDS, DEALS } from "./figures.js";

export class Atlas {
  constructor({ chooseExpert, chooseLayer }) {
    Object.assign(this, { chooseExpert });
    this.panel = new Panel("atlas", "Atlas of the experts",
      `Evidence: D(p(label | expert) ‖ p(label)) in nats, by weight; weighted by the experts' shares these sum to the mutual information. “chance”: its mean over ${DEALS} deals of the labels at random; p: share of deals that give as much.`);
    this.layers = el("select", { "aria-label": "layer", onchange: () => chooseLayer(Number(this.layers.value)) });
    this.table = el("div");
    this.panel.body.append(el("p", { class: "controls" }, "Layer ", this.layers), this.table);
    this.panel.details.hidden = true;
  }

  update(trace, { layer, expert, brush }) {
    if (!trace.routed.includes(layer)) {
      this.panel.say("This model has no experts.");
      return;
    }
    replace(this.layers, ...trace.routed.map((each) => el("option", { value: each, selected: each === layer }, String(each))));
    const key = `${trace.version} ${layer} ${brush}`;
    if (this.key !== key || this.of !== trace) {
      const range = brush ? { from: brush[0], to: brush[1] } : {};
      const found = Object.fromEntries(Object.keys(LABELS).map((name) => [name, informationOf(trace, layer, name, { range })]));
      this.cards = Array.from({ length: trace.header.experts[layer] }, (_, each) => cardOf(trace, layer, each, range));
      this.found = found;
      [this.key, this.of] = [key, trace];
    }
    const cell = (name, each) => {
      const { nats, null: chance, p } = this.found[name].experts[each];
      return el("span", { class: p <= 0.01 ? "sure" : "" }, `${number(nats, 2)} `, el("small", {}, `chance ${number(chance, 2)}, p ${number(p, 2)}`));
    };
    replace(this.table, table(`Experts of layer ${layer}`, ["expert", "load", "weight", ...Object.keys(LABELS), "favourites by lift", "hypothesis"],
      this.cards.map((card) => [
        el("button", { type: "button", class: "expert", "aria-pressed": String(card.expert === expert), style: { "border-color": expertColour(card.expert) }, onclick: () => this.chooseExpert(layer, card.expert) }, `${layer}:${card.expert}`),
        number(card.share, 2), number(card.weight, 2), ...Object.keys(LABELS).map((name) => cell(name, card.expert)),
        card.favourites.slice(0, 4).map((each) => `${quoted(trace.word(each.value), 12)} ×${each.lift.toFixed(1)}`).join(" ") || "–",
        hypothesisOf(card, Object.fromEntries(Object.keys(LABELS).map((name) => [name, this.found[name].experts[card.expert]]))),
      ])));
    const told = Object.keys(LABELS).map((name) => {
      const { nats, null: chance, p } = this.found[name].layer;
      return `${LABEL_WORDS[name]}: ${number(nats, 2)} nats (chance ${number(chance, 2)}, p ${number(p, 2)})`;
    });
    this.panel.say(`In layer ${layer}, knowing a token's expert tells ${told.join("; ")}. Roles below are hypotheses about these ${plain(this.cards[0].tokens)} tokens.`);
  }
}

export class Card {
  constructor({ steer }) {
    this.panel = new Panel("card", "Card of an expert",
      "Lift: its share of a token's weight over its share of all weight; 1 is none, of tokens read three times or more. Partners: selected together over what independence would give.");
    this.steer = steer;
    this.panel.details.hidden = true;
  }

  update(trace, { layer, expert, brush }) {
    if (!trace.routed.includes(layer) || !(expert >= 0)) {
      this.panel.say("Choose an expert: click its disc, its bar or its row.");
      replace(this.panel.body);
      return;
    }
    const card = cardOf(trace, layer, expert, brush ? { from: brush[0], to: brush[1] } : {});
    this.panel.node.querySelector("h2").textContent = `Expert ${layer}:${expert}`;
    this.panel.say(`It got ${number(card.share, 2)} of a fair share of the tokens and ${number(card.weight, 2)} of a fair weight; its mean place is ${number(card.position, 2)} (all tokens: 0.50).`);
    const line = (name, words) => [el("dt", {}, name), el("dd", {}, words || "none read three times or more")];
    replace(this.panel.body,
      el("dl", { class: "pairs" },
        ...line("favourite tokens", card.favourites.slice(0, 8).map((each) => `${quoted(trace.word(each.value), 12)} ×${each.lift.toFixed(1)} (n=${each.seen})`).join("  ")),
        ...line("favourite kinds", card.kinds.slice(0, 4).map((each) => `${each.value} ×${each.lift.toFixed(1)} (n=${each.seen})`).join("  ")),
        ...line("together with", card.partners.slice(0, 6).map((each) => `${layer}:${each.other} ×${each.lift.toFixed(2)}`).join("  ") || "–")),
      this.steer && el("p", { class: "controls" },
        el("button", { type: "button", onclick: () => this.steer("masked", layer, expert) }, "Write again without it"),
        el("button", { type: "button", onclick: () => this.steer("forced", layer, expert) }, "Write again with it always"),
        el("button", { type: "button", onclick: () => this.steer("masked", layer, expert, true) }, "Go on from this token without it")));
  }
}

export class Company {
  constructor({ chooseExpert }) {
    this.panel = new Panel("company", "Selected together",
      "Lift: how often two experts were selected for one token, over how often they would be, were each independent of the other. Drawn where above what equally likely sets would give; dotted where below half of that.");
    this.canvas = new Canvas("Experts of the layer in a round, lines between those selected together", 300, (...given) => this.draw(...given));
    this.canvas.node.addEventListener("click", (event) => {
      const hit = this.spots?.findIndex(([x, y]) => Math.hypot(event.offsetX - x, event.offsetY - y) < 16);
      if (hit >= 0) chooseExpert(this.layer, hit);
    });
    this.panel.body.append(this.canvas.node);
  }

  update(trace, { layer, expert, brush }) {
    Object.assign(this, { trace, layer, expert });
    if (!trace.routed.includes(layer)) return;
    this.found = together(trace, layer, brush ? { from: brush[0], to: brush[1] } : {});
    this.canvas.redraw();
    const { lift, both, even } = this.found;
    let best = null;
    lift.forEach((row, one) => row.forEach((each, other) => {
      if (one < other && each > (best?.lift ?? 0)) best = { one, other, lift: each };
    }));
    this.panel.say(trace.topk < 2 ? "A token goes to one expert, so none are selected together."
      : best ? `In layer ${layer}, ${layer}:${best.one} and ${layer}:${best.other} keep company most: ${number(best.lift, 2)} times as often as independence would give (${plain(both[best.one][best.other])} tokens); equally likely sets would give ${number(even, 2)}.` : "No two experts were selected together.");
    this.panel.tell(() => table("Lift of each pair", ["expert", ...lift.map((_, other) => String(other))],
      lift.map((row, one) => [`${layer}:${one}`, ...row.map((each) => number(each, 2))])));
  }

  draw(context, width, height) {
    const { trace, layer, found } = this;
    if (!found || !trace.routed.includes(layer)) return;
    const look = theme();
    const count = trace.header.experts[layer];
    const radius = Math.min(width, height) / 2 - 26;
    this.spots = Array.from({ length: count }, (_, expert) => {
      const angle = (2 * Math.PI * expert) / count - Math.PI / 2;
      return [width / 2 + radius * Math.cos(angle), height / 2 + radius * Math.sin(angle)];
    });
    found.lift.forEach((row, one) => row.forEach((lift, other) => {
      if (other <= one || Number.isNaN(lift)) return;
      const over = lift / Math.max(found.even, 1e-9);
      if (over >= 0.5 && over <= 1) return;
      context.setLineDash(over < 0.5 ? [1, 5] : []);
      context.strokeStyle = over < 0.5 ? look.soft : look.accent;
      context.globalAlpha = over < 0.5 ? 0.7 : Math.min(1, 0.25 + (over - 1) / 2);
      context.lineWidth = over < 0.5 ? 1 : Math.min(9, 1 + 4 * (over - 1));
      context.beginPath();
      context.moveTo(...this.spots[one]);
      context.quadraticCurveTo(width / 2, height / 2, ...this.spots[other]);
      context.stroke();
    }));
    context.setLineDash([]);
    context.globalAlpha = 1;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.spots.forEach(([x, y], expert) => {
      context.fillStyle = expertColour(expert);
      context.beginPath();
      context.arc(x, y, 13, 0, 7);
      context.fill();
      if (expert === this.expert) {
        context.strokeStyle = look.accent;
        context.lineWidth = 3;
        context.stroke();
      }
      context.fillStyle = "#1d2126";
      context.fillText(String(expert), x, y);
    });
  }
}
