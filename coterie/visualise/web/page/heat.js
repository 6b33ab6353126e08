// Experts × time: when each expert of each layer was at work. Dragging over it chooses tokens,
// and all figures of loads and routers are then of these alone.

import { el, Canvas, Panel, table, theme, number, plain, ramp } from "./dom.js";
import { readTokens } from "./figures.js";

const ROW = 11;
const LEFT = 44;

// [rows][columns] mean share of weight times E of the tokens in each column; 1 is fair.
export function heatOf(trace, columns) {
  const rows = trace.routed.flatMap((layer) => Array.from({ length: trace.header.experts[layer] }, (_, expert) => ({
    layer, expert, cells: new Float64Array(columns),
  })));
  const starts = new Map();
  rows.forEach((row, i) => row.expert === 0 && starts.set(row.layer, i));
  const seen = new Float64Array(columns);
  for (const token of readTokens(trace)) {
    const column = Math.min(columns - 1, Math.floor((token * columns) / trace.length));
    seen[column] += 1;
    for (const layer of trace.routed) {
      const some = trace.experts(token, layer);
      const total = some.reduce((sum, each) => sum + each.weight, 0);
      if (total <= 0) continue;
      for (const { expert, weight } of some) rows[starts.get(layer) + expert].cells[column] += weight / total;
    }
  }
  for (const row of rows) {
    const count = trace.header.experts[row.layer];
    row.cells.forEach((sum, column) => (row.cells[column] = seen[column] ? (sum * count) / seen[column] : NaN));
  }
  return rows;
}

export class Heat {
  constructor({ setBrush, chooseExpert, setAt }) {
    Object.assign(this, { setBrush, chooseExpert, setAt });
    this.panel = new Panel("heat", "Experts over the text",
      "Cell: mean over its tokens of the expert's share of the token's weight, times E; 1 is fair, the scale ends at 3. Below: surprise −log p, up to log V. Drag to choose tokens.");
    this.canvas = new Canvas("How much weight each expert got along the text; drag to choose a part", 100, (...given) => this.draw(...given));
    const field = (label) => el("input", { type: "number", min: "1", "aria-label": label, onchange: () => this.typed() });
    [this.from, this.to] = [field("first token chosen"), field("last token chosen")];
    this.all = el("button", { type: "button", onclick: () => setBrush(null) }, "all tokens");
    this.panel.body.append(this.canvas.node, el("p", { class: "controls" }, "Tokens ", this.from, " to ", this.to, " ", this.all));
    this.drag();
  }

  typed() {
    const [from, to] = [Number(this.from.value) || 1, Number(this.to.value) || this.trace.length];
    this.setBrush([Math.max(0, Math.min(from, to) - 1), Math.min(this.trace.length, Math.max(from, to))]);
  }

  tokenAt(x) {
    const share = (x - LEFT) / (this.canvas.width - LEFT);
    return Math.max(0, Math.min(this.trace.length, Math.round(share * this.trace.length)));
  }

  drag() {
    const { node } = this.canvas;
    let start = null;
    node.addEventListener("pointerdown", (event) => {
      start = event.offsetX;
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (start === null || Math.abs(event.offsetX - start) < 4) return;
      const [from, to] = [this.tokenAt(start), this.tokenAt(event.offsetX)].sort((a, b) => a - b);
      if (to > from) this.setBrush([from, to]);
    });
    node.addEventListener("pointerup", (event) => {
      if (start !== null && Math.abs(event.offsetX - start) < 4) {
        const row = this.rows?.[Math.floor(event.offsetY / ROW)];
        if (row && event.offsetX < LEFT) this.chooseExpert(row.layer, row.expert);
        else this.setAt(Math.min(this.trace.length - 1, this.tokenAt(event.offsetX)));
      }
      start = null;
    });
  }

  update(trace, { at, brush, layer, expert }) {
    Object.assign(this, { trace, at, brush, chosen: [layer, expert] });
    for (const [field, value] of [[this.from, brush ? brush[0] + 1 : 1], [this.to, brush ? brush[1] : trace.length]]) {
      if (document.activeElement !== field) field.value = value; // nobody's typing is overwritten
    }
    this.all.disabled = brush === null;
    const key = `${trace.version} ${this.canvas.width}`;
    if (this.key !== key || this.of !== trace) {
      this.columns = Math.max(1, Math.min(trace.length, Math.floor(((this.canvas.width || 600) - LEFT) / 3)));
      this.rows = heatOf(trace, this.columns);
      [this.key, this.of] = [key, trace];
      this.canvas.resize(this.rows.length * ROW + 44);
    }
    this.canvas.redraw();
    const peak = this.rows.reduce((best, row) => {
      row.cells.forEach((value, column) => {
        if (value > best.value) best = { value, column, row };
      });
      return best;
    }, { value: 0 });
    const per = Math.ceil(trace.length / this.columns);
    this.panel.say(peak.row ? `Most at once: expert ${peak.row.layer}:${peak.row.expert} got ${number(peak.value, 1)} times its fair weight around token ${plain(Math.floor((peak.column * trace.length) / this.columns) + 1)} (${per === 1 ? "one token" : `${per} tokens`} a column).` : "This model has no experts.");
    this.panel.tell(() => {
      const coarse = heatOf(trace, Math.min(8, Math.max(trace.length, 1)));
      return table("Weight of each expert over eight parts of the text, fair: 1", ["expert", ...(coarse[0] ? Array.from(coarse[0].cells, (_, part) => `part ${part + 1}`) : [])],
        coarse.map((row) => [`${row.layer}:${row.expert}`, ...Array.from(row.cells, (value) => number(value, 2))]));
    });
  }

  draw(context, width) {
    const { trace, rows, columns, at, brush } = this;
    if (!trace?.length || !rows) return;
    const look = theme();
    const wide = (width - LEFT) / columns;
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    rows.forEach((row, i) => {
      const own = row.layer === this.chosen[0] && row.expert === this.chosen[1];
      context.fillStyle = own ? look.accent : look.soft;
      context.fillText(`${own ? "▸" : ""}${row.layer}:${row.expert}`, 0, i * ROW + ROW / 2);
      for (let column = 0; column < columns; column++) {
        const value = row.cells[column];
        if (Number.isNaN(value)) continue;
        context.fillStyle = ramp(value / 3);
        context.fillRect(LEFT + column * wide, i * ROW, Math.ceil(wide * 10) / 10, ROW - 1);
      }
    });
    const base = rows.length * ROW + 40;
    const bound = Math.log(Math.max(trace.header.vocabulary, 2));
    context.fillStyle = look.soft;
    context.fillText("surprise", 0, base - 16);
    context.fillStyle = look.accent;
    const sums = new Float64Array(columns);
    const counts = new Float64Array(columns);
    for (let token = 0; token < trace.length; token++) {
      const surprise = trace.get("surprise", token);
      if (Number.isNaN(surprise)) continue;
      const column = Math.min(columns - 1, Math.floor((token * columns) / trace.length));
      sums[column] += surprise;
      counts[column] += 1;
    }
    for (let column = 0; column < columns; column++) {
      if (!counts[column]) continue;
      const tall = Math.min(1, sums[column] / counts[column] / bound) * 32;
      context.fillRect(LEFT + column * wide, base - tall, Math.max(wide - 0.5, 0.5), tall);
    }
    const x = (token) => LEFT + (token / trace.length) * (width - LEFT);
    if (brush) {
      context.fillStyle = look.paper;
      context.globalAlpha = 0.65;
      context.fillRect(LEFT, 0, x(brush[0]) - LEFT, base);
      context.fillRect(x(brush[1]), 0, width - x(brush[1]), base);
      context.globalAlpha = 1;
      context.strokeStyle = look.accent;
      context.lineWidth = 2;
      context.strokeRect(x(brush[0]), 1, x(brush[1]) - x(brush[0]), base - 2);
    }
    context.fillStyle = look.alert;
    context.fillRect(x(at + 0.5), 0, 1.5, base);
  }
}
