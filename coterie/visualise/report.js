// Values on hovering, touching or by arrow keys, and a slider through the samples. Without this
// script the page is complete: charts are drawn, samples listed.
"use strict";

function number(value, digits = 4) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return value.toExponential(digits - 2);
  const least = size >= 0.1 && size < 1000 ? digits : 1;
  return value.toLocaleString("en", { minimumSignificantDigits: least, maximumSignificantDigits: size >= 1000 ? 6 : digits });
}

// A path is absolute M and relative l in a box of 10,000 by 10,000; see charts.py.
function points(d) {
  const found = [];
  let x = 0, y = 0;
  for (const [, letter, rest] of d.matchAll(/([Ml])([^Mlh]*)/g)) {
    const values = rest.match(/-?\d+/g).map(Number);
    for (let i = 0; i + 1 < values.length; i += 2) {
      x = letter === "M" ? values[i] : x + values[i];
      y = letter === "M" ? values[i + 1] : y + values[i + 1];
      found.push([x, y]);
    }
  }
  return found;
}

function nearest(list, x) {
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle][0] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - list[low - 1][0] <= list[low][0] - x ? low - 1 : low;
}

function element(name, kind, parent) {
  const made = document.createElement(name);
  made.className = kind;
  parent.append(made);
  return made;
}

// One tip per picture; `line` writes a row of it as text, never as HTML.
function makeTip(box) {
  const tip = element("div", "tip", box);
  tip.setAttribute("role", "status");
  tip.hidden = true;
  return {
    hide() { tip.hidden = true; },
    show(head, lines, x, y) {
      tip.replaceChildren();
      element("b", "", tip).textContent = head;
      for (const [colour, text] of lines) {
        const row = element("div", "", tip);
        if (colour) element("i", "", row).style.setProperty("--c", colour);
        row.append(text);
      }
      tip.hidden = false;
      const room = box.clientWidth + 60;
      tip.style.left = (x + tip.offsetWidth + 16 > room ? Math.max(-40, x - tip.offsetWidth - 14) : x + 14) + "px";
      tip.style.top = Math.max(-8, y - tip.offsetHeight / 2) + "px";
    },
  };
}

// Pointer and keyboard move the same cursor; `show(position)` draws it, `keys` maps arrows.
function follow(box, atPointer, atKey, hide) {
  box.tabIndex = 0;
  const point = (event) => {
    const area = box.getBoundingClientRect();
    atPointer((event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height);
  };
  box.addEventListener("pointermove", point);
  box.addEventListener("pointerdown", point);
  box.addEventListener("pointerleave", hide);
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    else if (atKey(event.key)) event.preventDefault();
  });
}

function chart(plot) {
  const [x0, x1] = plot.dataset.x.split(",").map(Number);
  const [y0, y1] = plot.dataset.y.split(",").map(Number);
  const log = plot.dataset.log === "1";
  const lines = [...plot.querySelectorAll("path[data-label]")].map((path) => ({
    label: path.dataset.label,
    colour: path.style.getPropertyValue("--c"),
    faint: path.classList.contains("faint"),
    points: points(path.getAttribute("d")),
  })).filter((line) => line.points.length);
  if (!lines.length) return;
  const toX = (px) => x0 + (px / 1e4) * (x1 - x0);
  const toY = (py) => {
    const share = 1 - py / 1e4;
    return log ? y0 * (y1 / y0) ** share : y0 + share * (y1 - y0);
  };
  const guide = lines.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
  const whole = plot.dataset.name === "step" || plot.dataset.name === "tokens";
  const place = (px) => (whole ? Math.round(toX(px)).toLocaleString("en") : number(toX(px)));
  const cursor = element("div", "cursor", plot);
  const tip = makeTip(plot);
  let index = guide.length - 1;
  cursor.hidden = true;
  const show = () => {
    const at = guide[index][0];
    const left = (at / 1e4) * plot.clientWidth;
    cursor.style.left = left + "px";
    cursor.hidden = false;
    const rows = lines.map((line) => {
      const [px, py] = line.points[nearest(line.points, at)];
      const apart = Math.abs(px - at) > 120 ? ` (at ${place(px)})` : "";
      return [line.faint ? "transparent" : line.colour, `${line.label} ${number(toY(py))}${apart}`];
    });
    tip.show(`${plot.dataset.name} ${place(at)}`, rows, left, plot.clientHeight / 2);
  };
  const hide = () => { cursor.hidden = true; tip.hide(); };
  follow(plot, (x) => {
    index = nearest(guide, Math.min(1, Math.max(0, x)) * 1e4);
    show();
  }, (key) => {
    const stride = Math.max(1, Math.round(guide.length / 100));
    const moves = { ArrowLeft: index - stride, ArrowRight: index + stride, Home: 0, End: guide.length - 1 };
    if (!(key in moves)) return false;
    index = Math.min(guide.length - 1, Math.max(0, moves[key]));
    show();
    return true;
  }, hide);
}

function heat(map) {
  const experts = Number(map.dataset.experts);
  const steps = map.dataset.steps.split(",").map(Number);
  const [factor, offset] = map.dataset.decode.split(",");
  const [over, under = "1"] = factor.split("/");
  const scale = Number(over) / Number(under);
  const bytes = Uint8Array.from(atob(map.dataset.values), (c) => c.charCodeAt(0));
  const load = offset === "0";
  const layer = map.parentElement.querySelector(".name").textContent;
  const cell = element("div", "cell", map);
  const tip = makeTip(map);
  let column = steps.length - 1, row = 0;
  cell.hidden = true;
  const show = () => {
    const byte = bytes[column * experts + row];
    const value = (byte - Number(offset)) * scale;
    const width = map.clientWidth / steps.length, height = map.clientHeight / experts;
    Object.assign(cell.style, { left: column * width + "px", top: row * height + "px", width: width + "px", height: height + "px" });
    cell.hidden = false;
    const words = load ? `${byte === 255 ? "more than 5" : value.toFixed(2)}× its even share` : `bias ${number(value, 2)}`;
    tip.show(`${layer}, expert ${row}`, [["", words], ["", `step ${steps[column].toLocaleString("en")}`]], (column + 1) * width, row * height);
  };
  const clip = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
  follow(map, (x, y) => {
    column = clip(x * steps.length, steps.length);
    row = clip(y * experts, experts);
    show();
  }, (key) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (!moves) return false;
    column = clip(column + moves[0], steps.length);
    row = clip(row + moves[1], experts);
    show();
    return true;
  }, () => { cell.hidden = true; tip.hide(); });
}

function samples(box) {
  const items = [...box.querySelectorAll("ol > li")];
  if (items.length < 2) return;
  const bar = document.createElement("div");
  bar.className = "slider";
  const button = (text, words, move) => {
    const made = element("button", "", bar);
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", words);
    made.addEventListener("click", () => { range.value = Number(range.value) + move; show(); });
    return made;
  };
  const range = document.createElement("input");
  Object.assign(range, { type: "range", min: 0, max: items.length - 1, step: 1, value: items.length - 1 });
  range.setAttribute("aria-label", "Sample, from first to last");
  button("← earlier", "Earlier sample", -1);
  bar.append(range);
  button("later →", "Later sample", 1);
  const place = element("span", "", bar);
  const show = () => {
    items.forEach((item, i) => { item.hidden = i !== Number(range.value); });
    place.textContent = `${Number(range.value) + 1} of ${items.length}`;
    range.setAttribute("aria-valuetext", `step ${items[range.value].dataset.step}`);
  };
  range.addEventListener("input", show);
  const toggle = box.querySelector(".toggle");
  if (toggle) bar.append(toggle);
  box.querySelector("ol").before(bar);
  show();
}

document.querySelectorAll(".plot").forEach(chart);
document.querySelectorAll(".map").forEach(heat);
document.querySelectorAll(".samples").forEach(samples);
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
});
