// Pieces that all views are made of. Text from outside goes into text nodes only, never into markup.

// Okabe & Ito 2008, told apart by eyes of every kind; beyond eight they repeat, and numbers tell.
export const PALETTE = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999"];
const MOST_SHOWN = 160; // characters of one token
const SVG = "http://www.w3.org/2000/svg";

export const expertColour = (expert) => PALETTE[expert % PALETTE.length];

// el("p", {class: "x", onclick: f, "aria-label": "…"}, "text", child…)
export function el(name, given = {}, ...children) {
  const node = document.createElement(name);
  setAll(node, given);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(name, given = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  setAll(node, given);
  node.append(...children);
  return node;
}

function setAll(node, given) {
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, each] of Object.entries(value)) node.style.setProperty(name, each);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
}

export function replace(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// A text with what would be obeyed or hidden written out: controls, and marks that reorder a line.
export function printable(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu,
    (character) => {
      const code = character.codePointAt(0);
      return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
    });
}

export function shortened(text, most = MOST_SHOWN) {
  if (text.length <= most) return text;
  return `${[...text.slice(0, most)].slice(0, -1).join("")}… (${text.length.toLocaleString("en")} characters)`;
}

// A token within a line: quoted, blanks shown.
export function quoted(text, most = 24) {
  return `‘${shortened(printable(text.replaceAll("\n", "⏎").replaceAll("\t", "⇥")), most)}’`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5)) return value.toExponential(2).replace("-", "−");
  return value.toFixed(digits).replace("-", "−");
}

export const percent = (value) => (Number.isNaN(value) ? "–" : `${(100 * value).toFixed(0)}\u00a0%`);
export const plain = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : "–");

// A table whose first column names the rows; cells are texts, numbers (right) or nodes.
export function table(caption, head, rows) {
  const body = rows.map((row) =>
    el("tr", {}, ...row.map((cell, place) => {
      const node = el(place ? "td" : "th", place ? {} : { scope: "row" }, cell);
      if (typeof cell === "number" || /^[−\d.–∞×%\s,]+$/.test(String(cell))) node.classList.add("figure");
      return node;
    })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {},
      el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...body)));
}

// A panel: what it says in words with the reader's own figures, a picture, its figures as a table,
// and the formula. `update` redraws what has changed; the table is made when it is opened.
export class Panel {
  constructor(id, title, formula, { open = false } = {}) {
    this.words = el("p", { class: "words" });
    this.body = el("div", { class: "body" });
    this.rows = el("div");
    this.details = el("details", { class: "figures", open }, el("summary", {}, "Figures"), this.rows);
    this.node = el("section", { class: "panel", id, "aria-labelledby": `${id}-title` },
      el("h2", { id: `${id}-title` }, title), this.words, this.body, this.details,
      el("p", { class: "formula" }, formula));
    this.details.addEventListener("toggle", () => this.fill());
    this.make = () => [];
  }

  say(words) {
    this.words.textContent = words;
  }

  // `make` returns the table's node; it is called only while somebody can see it.
  tell(make) {
    this.make = make;
    this.fill();
  }

  fill() {
    if (this.details.open) replace(this.rows, ...[this.make()].flat());
  }
}

// A canvas that is as sharp as the screen and as wide as its place; `draw(context, width, height)`.
export class Canvas {
  constructor(label, height, draw) {
    this.node = el("canvas", { role: "img", "aria-label": label, class: "canvas" });
    this.height = height;
    this.draw = draw;
    this.width = 0;
    new ResizeObserver(() => this.redraw()).observe(this.node);
  }

  resize(height) {
    this.height = height;
  }

  redraw() {
    const width = this.node.clientWidth;
    if (!width) return;
    const scale = Math.min(window.devicePixelRatio || 1, 3);
    const [wide, high] = [Math.round(width * scale), Math.round(this.height * scale)];
    if (this.node.width !== wide || this.node.height !== high) {
      this.node.width = wide;
      this.node.height = high;
      this.node.style.height = `${this.height}px`;
    }
    this.width = width;
    const context = this.node.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, this.height);
    this.draw(context, width, this.height);
  }
}

let looks = null;

// Colours of the page as it is now, light or dark, for what is drawn.
export function theme() {
  if (!looks) {
    const style = getComputedStyle(document.documentElement);
    looks = {};
    for (const name of ["paper", "card", "ink", "soft", "hair", "accent", "alert", "low", "high"]) {
      looks[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }
  return looks;
}

export function forgetTheme() {
  looks = null;
}

// From little to much in one hue; lightness alone tells the order.
export function ramp(share) {
  const colours = theme();
  if (!colours.steps) {
    const [low, high] = [colours.low, colours.high].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    colours.steps = Array.from({ length: 101 }, (_, step) =>
      `rgb(${low.map((from, i) => Math.round(from + ((high[i] - from) * step) / 100)).join(" ")})`);
  }
  return colours.steps[Math.round(100 * Math.max(0, Math.min(1, share || 0)))];
}
