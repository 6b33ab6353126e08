// One token's way through the layers, drawn on a canvas: it splits to the experts that were selected,
// each line as thick as its weight, and joins again in the stream; tokens before it leave a trail.

import { Canvas, Panel, table, theme, expertColour, quoted, number, percent } from "./dom.js";
import { loadOf } from "./figures.js";

const TRAIL = 10; // tokens before this one that are still seen
const TRAVEL = 650; // milliseconds from the token to its candidates

export class Flow {
  constructor({ chooseExpert }) {
    this.panel = new Panel("flow", "The way of a token",
      "Thickness: weight of the expert, over the sum of the token's weights. Disc: area by load so far, count · E / Σ count; ring: 1.00, fair.");
    this.canvas = new Canvas("A token's way through the experts of each layer; its figures stand in the table below",
      340, (context, width, height) => this.draw(context, width, height));
    this.canvas.node.addEventListener("click", (event) => {
      const hit = this.nodes?.find(({ x, y, r }) => Math.hypot(event.offsetX - x, event.offsetY - y) < Math.max(r, 10));
      if (hit) chooseExpert(hit.layer, hit.expert);
    });
    this.panel.body.append(this.canvas.node);
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.progress = 1;
    this.frames = 0; // drawn while moving, for whoever measures
  }

  update(trace, { at, layer, expert }) {
    const moved = at !== this.at || trace !== this.trace;
    Object.assign(this, { trace, at, chosen: [layer, expert] });
    if (!trace.routed.length || !trace.read(at)) {
      this.panel.say(trace.routed.length ? "The last token of a text is not read any more: it has no way yet." : "This model has no experts.");
      this.panel.tell(() => []);
      this.canvas.redraw();
      return;
    }
    if (this.loaded !== trace.version || this.loadedTrace !== trace) {
      this.loads = trace.routed.map((each) => loadOf(trace, each));
      [this.loaded, this.loadedTrace] = [trace.version, trace];
    }
    this.canvas.resize(Math.max(300, Math.min(520, 34 * trace.most + 60)));
    this.explain();
    if (moved && !this.still.matches) this.start();
    else this.canvas.redraw();
  }

  start() {
    this.progress = 0;
    if (this.moving) return;
    this.moving = true;
    let before = null;
    const step = (now) => {
      if (before !== null) this.progress += (now - before) / TRAVEL;
      before = now;
      this.frames += 1;
      this.canvas.redraw();
      if (this.progress < 1) requestAnimationFrame(step);
      else {
        this.moving = false;
        this.progress = 1;
        this.canvas.redraw();
      }
    };
    requestAnimationFrame(step);
  }

  explain() {
    const { trace, at } = this;
    const way = trace.routed.map((layer) => {
      const some = this.weights(at, layer);
      return `in layer ${layer} to ${some.map(({ expert, share }) => `expert ${expert} (${percent(share)})`).join(" and ") || "none"}`;
    });
    this.panel.say(`${quoted(trace.word(trace.get("token", at)))} went ${way.join(", ")}.`);
    this.panel.tell(() => table("The token's experts in each layer", ["layer", "experts: share of the token's weight", "margin"],
      trace.routed.map((layer) => [
        `layer ${layer}`,
        this.weights(at, layer).map(({ expert, share }) => `${expert}: ${number(share)}`).join("  "),
        number(trace.at("margin", at, layer)),
      ])));
  }

  weights(token, layer) {
    const some = this.trace.experts(token, layer);
    const total = some.reduce((sum, each) => sum + each.weight, 0);
    return some.map((each) => ({ ...each, share: total > 0 ? each.weight / total : 0 }))
      .sort((a, b) => b.share - a.share);
  }

  // Where everything stands, for a canvas of this size.
  places(width, height) {
    const { trace } = this;
    const side = Math.min(110, Math.max(62, width * 0.14));
    const gap = (width - 2 * side) / trace.routed.length;
    const middle = height / 2;
    const radius = Math.min(15, (height - 30) / trace.most / 2.6, gap / 4);
    const joints = trace.routed.map((_, i) => [side + i * gap, middle]).concat([[width - side, middle]]);
    const nodes = [];
    trace.routed.forEach((layer, i) => {
      const count = trace.header.experts[layer];
      for (let expert = 0; expert < count; expert++) {
        nodes.push({
          layer, expert, column: i, x: side + (i + 0.5) * gap,
          y: 26 + ((expert + 0.5) * (height - 34)) / count, r: radius,
        });
      }
    });
    return { joints, nodes, side, middle };
  }

  draw(context, width, height) {
    const { trace, at } = this;
    if (!trace?.routed.length || at >= trace.length) return;
    const place = this.places(width, height);
    this.nodes = place.nodes;
    const look = theme();
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let back = Math.min(TRAIL, at); back >= 0; back--) {
      if (trace.read(at - back)) this.path(context, place, at - back, back);
    }
    this.experts(context, place, look);
    context.fillStyle = look.ink;
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "right";
    const label = (token, most) => quoted(trace.word(token), most);
    const most = width < 500 ? 7 : 14;
    context.fillText(label(trace.get("token", at), most), place.side - 10, place.middle, place.side - 12);
    this.outcome(context, place, width, label, most, look);
    context.textAlign = "center";
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = look.soft;
    trace.routed.forEach((layer, i) => context.fillText(`layer ${layer}`, place.nodes.find((node) => node.column === i).x, 10));
  }

  // Lines of one token; `back` tells how long ago it came.
  path(context, { joints, nodes }, token, back) {
    const faded = back === 0 ? 0.95 : 0.22 * (1 - back / (TRAIL + 1));
    const columns = joints.length - 1;
    const front = back === 0 ? this.progress * columns : columns;
    for (let column = 0; column < Math.min(columns, Math.ceil(front)); column++) {
      const layer = this.trace.routed[column];
      const part = Math.min(1, front - column);
      const [from, to] = [joints[column], joints[column + 1]];
      for (const { expert, share } of this.weights(token, layer)) {
        const node = nodes.find((each) => each.column === column && each.expert === expert);
        context.strokeStyle = expertColour(expert);
        context.globalAlpha = faded;
        context.lineWidth = Math.max(1, 13 * share);
        curve(context, from, [node.x, node.y], Math.min(1, part * 2));
        if (part > 0.5) curve(context, [node.x, node.y], to, (part - 0.5) * 2);
        if (back === 0 && this.progress < 1 && part < 1) {
          const [x, y] = part < 0.5 ? along(from, [node.x, node.y], part * 2) : along([node.x, node.y], to, part * 2 - 1);
          context.globalAlpha = 1;
          context.fillStyle = expertColour(expert);
          context.beginPath();
          context.arc(x, y, 3 + 5 * share, 0, 7);
          context.fill();
        }
      }
    }
    context.globalAlpha = 1;
  }

  experts(context, { nodes }, look) {
    context.textAlign = "center";
    for (const { layer, expert, column, x, y, r } of nodes) {
      const load = this.loads[column].share[expert];
      const used = this.weights(this.at, layer).some((each) => each.expert === expert);
      context.beginPath();
      context.arc(x, y, Math.min(1.9, Math.sqrt(Math.max(load, 0.02))) * r * 0.8, 0, 7);
      context.fillStyle = used ? expertColour(expert) : look.hair;
      context.fill();
      context.setLineDash([2, 2]);
      context.strokeStyle = look.soft;
      context.lineWidth = 1;
      context.beginPath();
      context.arc(x, y, r * 0.8, 0, 7);
      context.stroke();
      context.setLineDash([]);
      if (layer === this.chosen[0] && expert === this.chosen[1]) {
        context.strokeStyle = look.accent;
        context.lineWidth = 2;
        context.strokeRect(x - r - 3, y - r - 3, 2 * r + 6, 2 * r + 6);
      }
      const flag = this.loads[column].dead.includes(expert) ? "✗" : this.loads[column].hot.includes(expert) ? "▲" : "";
      context.fillStyle = used ? "#1d2126" : look.ink;
      context.font = used ? "600 11px system-ui, sans-serif" : "11px system-ui, sans-serif";
      if (r >= 6) context.fillText(`${expert}${flag}`, x, y);
    }
  }

  // What the model then took to be likely, and what came.
  outcome(context, place, width, label, most, look) {
    const { trace, at } = this;
    if (at + 1 >= trace.length || this.progress < 1) return;
    context.textAlign = "left";
    const count = Math.min(5, trace.header.candidates);
    for (let row = 0; row < count; row++) {
      const chance = trace.get("before_p", at + 1, row);
      if (!(chance > 0)) continue;
      const token = trace.get("before", at + 1, row);
      const came = token === trace.get("token", at + 1);
      const y = place.middle + (row - (count - 1) / 2) * 26;
      context.fillStyle = look.hair;
      context.fillRect(width - place.side + 8, y + 7, (place.side - 12) * chance, 3);
      context.fillStyle = came ? look.ink : look.soft;
      context.font = `${came ? 600 : 400} 12px system-ui, sans-serif`;
      context.fillText(`${label(token, most)} ${percent(chance)}${came ? " ◂" : ""}`, width - place.side + 8, y, place.side - 10);
    }
  }
}

function along([x0, y0], [x1, y1], t) {
  const bend = (x1 - x0) / 2;
  const [a, b, c, d] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
  return [a * x0 + b * (x0 + bend) + c * (x1 - bend) + d * x1, a * y0 + b * y0 + c * y1 + d * y1];
}

function curve(context, from, to, part) {
  if (part <= 0) return;
  context.beginPath();
  context.moveTo(...from);
  if (part >= 1) {
    const bend = (to[0] - from[0]) / 2;
    context.bezierCurveTo(from[0] + bend, from[1], to[0] - bend, to[1], ...to);
  } else {
    for (let i = 1; i <= 12; i++) context.lineTo(...along(from, to, (part * i) / 12));
  }
  context.stroke();
}
