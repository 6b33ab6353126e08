// The text as a ribbon of tokens that can be clicked, coloured by expert, surprise or entropy.
// Tokens stand in strips that the browser lays out only when they are near (content-visibility).

import { el, printable, shortened, number, quoted } from "./dom.js";

const STRIP = 96; // tokens, after which a line break ends a strip
const LONGEST_STRIP = 480;
const STEPS = 10; // of surprise and entropy

export const COLOURINGS = {
  expert: "expert of most weight",
  surprise: "surprise −log p, nats",
  entropy: "entropy −Σ p log p, nats",
};

// A token's text within a ribbon: blanks are seen and kept.
export function asShown(text) {
  return shortened(printable(text.replaceAll("\n", "\uE000").replaceAll("\t", "\uE001")))
    .replaceAll("\uE000", "⏎\n").replaceAll("\uE001", "\t") || "·";
}

export class Ribbon {
  // `choose(token)` is called when somebody clicks one.
  constructor(label, choose) {
    this.node = el("div", {
      class: "ribbon", role: "listbox", tabindex: "0", "aria-label": label,
      onclick: (event) => {
        const token = event.target.closest?.("[data-token]");
        if (token) choose(Number(token.dataset.token));
      },
    });
    this.prefix = `t${Ribbon.count++}-`;
    this.clear();
  }

  static count = 0;

  clear() {
    this.node.replaceChildren();
    this.spans = [];
    this.strip = null;
    this.shown = {};
  }

  // Show a trace: new tokens are added, colours renewed where they changed. `parted`: the token
  // from which on it differs from the text beside it.
  update(trace, { colouring, layer, at, brush = null, parted = null }) {
    if (this.trace !== trace) this.clear();
    this.trace = trace;
    const before = this.spans.length;
    for (let token = before; token < trace.length; token++) this.append(trace, token);
    const now = `${colouring} ${layer} ${brush} ${parted}`;
    // The last token seen before may have been read since: its colour is only known now.
    const from = this.shown.colours === now ? Math.max(0, before - 1) : 0;
    for (let token = from; token < this.spans.length; token++) {
      this.spans[token].className = this.style(trace, token, colouring, layer, brush, parted);
    }
    this.shown.colours = now;
    if (this.shown.at !== at || before !== this.spans.length) this.choose(at);
  }

  append(trace, token) {
    const text = trace.texts[token];
    const shown = asShown(text);
    const span = el("span", { role: "option", id: this.prefix + token, "data-token": token }, shown);
    if (!shown.trim()) span.setAttribute("aria-label", quoted(text));
    if (/\p{Script=Hebrew}|\p{Script=Arabic}/u.test(text)) span.setAttribute("dir", "auto");
    const full = this.strip && (this.strip.childElementCount >= LONGEST_STRIP
      || (this.strip.childElementCount >= STRIP && this.spans.at(-1).textContent.endsWith("\n")));
    if (!this.strip || full) {
      this.strip = el("div", { class: "strip", role: "presentation" });
      this.node.append(this.strip);
    }
    this.strip.append(span);
    this.spans.push(span);
  }

  style(trace, token, colouring, layer, brush, parted) {
    const classes = ["token"];
    if (token === this.shown.at) classes.push("at");
    if (!trace.generated(token)) classes.push("prompt");
    if (brush && (token < brush[0] || token >= brush[1])) classes.push("outside");
    if (parted !== null && token >= parted) classes.push("parted");
    if (colouring === "expert") {
      const expert = trace.header.experts[layer] ? trace.first(token, layer) : null;
      if (expert !== null) classes.push(`e${expert % 8}`);
    } else {
      const share = trace.get(colouring, token) / Math.log(Math.max(trace.header.vocabulary, 2));
      if (!Number.isNaN(share)) classes.push(`s${Math.max(0, Math.min(STEPS, Math.round(share * STEPS)))}`);
    }
    return classes.join(" ");
  }

  choose(at) {
    const old = this.spans[this.shown.at];
    old?.classList.remove("at");
    old?.removeAttribute("aria-selected");
    this.shown.at = at;
    const span = this.spans[at];
    if (!span) return;
    span.classList.add("at");
    span.setAttribute("aria-selected", "true");
    this.node.setAttribute("aria-activedescendant", span.id);
    const [top, low] = [this.node.getBoundingClientRect(), span.getBoundingClientRect()];
    if (low.bottom > top.bottom || low.top < top.top) {
      this.node.scrollTop += low.top - top.top - top.height / 2; // the page itself stays where it is
    }
  }
}

// What the colours mean.
export function legend(trace, colouring, layer) {
  const node = el("p", { class: "legend" });
  if (colouring === "expert") {
    node.append(`Expert of most weight in layer ${layer}: `);
    const count = trace.header.experts[layer] ?? 0;
    for (let expert = 0; expert < Math.min(count, 32); expert++) {
      node.append(el("span", { class: `token e${expert % 8}` }, ` ${expert} `), " ");
    }
    if (count > 8) node.append(" (colours repeat after eight)");
  } else {
    node.append(`${COLOURINGS[colouring]}: 0 `);
    for (let step = 0; step <= STEPS; step += 2) node.append(el("span", { class: `token s${step}` }, "  "));
    node.append(` ${number(Math.log(Math.max(trace.header.vocabulary, 2)), 2)} = log V, a uniform guess`);
  }
  node.append(" · italics: prompt");
  return node;
}

export function headingOf(trace, at) {
  const parts = [
    `Token ${(at + 1).toLocaleString("en")} of ${trace.length.toLocaleString("en")}: ${quoted(trace.word(trace.get("token", at)))}`,
    trace.generated(at) ? "generated" : "prompt",
    `surprise ${number(trace.get("surprise", at), 2)} nats`,
  ];
  return parts.join(" · ");
}
