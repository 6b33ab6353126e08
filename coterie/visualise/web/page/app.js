// The page: texts come from the server as they are written, or lie inside an exported file; what is
// looked at is one state, and the panels in view follow it.

import { Trace, unpack, fromBase64 } from "./trace.js";
import { el, replace, forgetTheme, plain, printable } from "./dom.js";
import { Ribbon, COLOURINGS, legend, headingOf } from "./ribbon.js";
import { Flow } from "./flow.js";
import { Attention, Candidates, Lens, Load, Margins, Now, Stream } from "./panels.js";
import { Heat } from "./heat.js";
import { Atlas, Card, Company } from "./atlas.js";
import { Compare, Effects, Lapse, WriteForm } from "./touch.js";
import { Training } from "./training.js";

const PACE = 14; // tokens a second in replay
const SLOW = 250; // milliseconds between two drawings of what is costly, while a text comes
const VIEWS = { text: "Text", experts: "Experts", compare: "Compare", training: "Training" };
const KEYS = [
  ["Space", "replay, pause"], ["← →", "one token back, forth"], ["Home End", "first, last token"],
  ["↑ ↓", "layer"], ["[ ]", "expert"], ["m", "write again without the expert"], ["f", "write again with it always"], ["M F", "the same, from this token on"],
  ["c", "colour by expert, surprise, entropy"], ["1–4", "views"], ["?", "this help"],
];

class App {
  constructor() {
    this.texts = new Map();
    this.state = { at: 0, layer: 0, expert: -1, colouring: "expert", brush: null, view: "text" };
    this.follows = true; // the latest token
    this.packs = document.getElementById("packs");
  }

  async begin() {
    this.build();
    const asked = new URLSearchParams(location.search);
    if (this.packs) {
      const packs = JSON.parse(this.packs.textContent);
      for (const [i, pack] of packs.entries()) this.add(i + 1, await unpack(pack));
      this.tabs.training.hidden = true;
    } else {
      const state = await this.fetch("/api/state");
      this.training.control = state.control;
      this.effects.panel.node.hidden = this.lapse.panel.node.hidden = !state.model;
      if (state.model) this.offerWriting(state.model, state.texts);
      this.awaited = state.texts[0]?.id;
      for (const text of state.texts) this.listen(text.id);
      if (asked.get("view") in VIEWS) this.show(asked.get("view"));
      else if (!state.model && !state.texts.length) this.show("training");
    }
    this.run = asked.get("run");
    document.documentElement.dataset.ready = "yes";
  }

  // --- the server ---

  async fetch(path, body) {
    const answer = await fetch(path, body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const value = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(value.problem ?? `The server refused: ${answer.status} ${answer.statusText}`);
    return value;
  }

  listen(id) {
    const source = new EventSource(`/api/texts/${id}/events`);
    let trace = null;
    source.addEventListener("opening", ({ data }) => {
      trace = new Trace(JSON.parse(data));
      this.add(id, trace);
    });
    source.addEventListener("tokens", ({ data }) => {
      const { records, texts, words } = JSON.parse(data);
      trace.add(fromBase64(records), texts, words);
      this.grown(trace);
    });
    source.addEventListener("ending", ({ data }) => {
      source.close();
      Object.assign(trace, JSON.parse(data), { done: true });
      if (trace.problem) this.complain(trace.problem);
      if (trace === this.trace) this.entitle();
      this.grown(trace);
    });
  }

  follow(name, take) {
    const source = new EventSource(`/api/runs/${encodeURIComponent(name)}/events`);
    source.addEventListener("curves", ({ data }) => take(JSON.parse(data)));
    source.addEventListener("problem", ({ data }) => {
      source.close();
      this.complain(JSON.parse(data).problem);
    });
    return () => source.close();
  }

  async write(ask, show = true) {
    try {
      const { id } = await this.fetch("/api/texts", ask);
      if (show) this.awaited = id;
      this.listen(id);
      this.complain("");
      return id;
    } catch (error) {
      this.complain(error.message);
      return null;
    }
  }

  // Write the text on show again, with a hand in the routing; beside it a control, and what it costs.
  // `here`: from the token that is looked at on alone.
  async steer(kind, layer, expert, here = false) {
    const base = this.trace;
    const { temperature, top_k, top_p, max_tokens, seed } = base.drawing;
    const drawing = Object.fromEntries(Object.entries({ temperature, top_k, top_p, max_tokens, seed }).filter(([, value]) => value !== null && value !== undefined));
    const ask = { after: base.id, upto: here ? this.state.at + 1 : null, drawing, step: base.header.step };
    const id = await this.write({ ...ask, [kind]: [...new Set([...base.header[kind], `${layer}:${expert}`])] }, false);
    if (id === null) return;
    const others = Array.from({ length: base.header.experts[layer] }, (_, each) => each).filter((each) => each !== expert);
    const drawn = others[Math.floor(Math.random() * others.length)];
    if (others.length) await this.write({ ...ask, [kind]: [`${layer}:${drawn}`], title: `control: ${kind === "masked" ? "without" : "always"} ${layer}:${drawn}` }, false);
    this.compare.choose(0, base.id);
    this.compare.choose(1, id);
    this.show("compare");
    this.measure({ [kind]: [`${layer}:${expert}`] });
  }

  async measure(hand) {
    this.effects.busy(true);
    try {
      this.effects.show(await this.fetch("/api/effect", { text: this.trace.id, ...hand }));
    } catch (error) {
      this.effects.panel.say(error.message);
    }
    this.effects.busy(false);
  }

  async readThrough() {
    this.lapse.button.disabled = true;
    try {
      const { trace } = this;
      if (!trace) throw new Error("There is no text on show yet.");
      this.lapse.show(await this.fetch("/api/lapse", { text: trace.id }), trace);
    } catch (error) {
      this.lapse.panel.say(error.message);
    }
    this.lapse.button.disabled = false;
  }

  // --- texts ---

  get trace() {
    return this.texts.get(this.current);
  }

  add(id, trace) {
    trace.id = id;
    this.texts.set(id, trace);
    this.select.hidden = this.exporter.hidden = false;
    replace(this.select, ...[...this.texts.values()].sort((one, other) => one.id - other.id).map((each) => el("option", { value: each.id }, `${each.id} · ${each.title}`)));
    if (this.current === undefined || this.awaited === id) this.open(id);
    this.select.value = String(this.current);
    this.changed("trace");
  }

  open(id) {
    this.current = id;
    this.select.value = String(id);
    const { trace } = this;
    this.follows = true;
    Object.assign(this.state, { at: Math.max(0, trace.readUpTo - 1), brush: null });
    if (!trace.routed.includes(this.state.layer)) this.state.layer = trace.routed[0] ?? 0;
    if (!trace.routed.length && this.state.colouring === "expert") this.state.colouring = "surprise";
    this.entitle();
    this.changed("trace");
  }

  entitle() {
    const { header: { model, step, masked, forced }, done, ending, problem } = this.trace;
    const cut = done && !problem && (ending ?? "cut short") === "cut short";
    replace(this.heading, el("b", {}, printable(model || "a model")), step ? ` step ${plain(step)}` : "",
      ...masked.map((each) => el("span", { class: "hand" }, `without ${each}`)),
      ...forced.map((each) => el("span", { class: "hand" }, `always ${each}`)),
      cut ? el("span", { class: "hand", title: "No end was recorded: whoever wrote the record stopped without a word. What stands here is whole." }, "cut short") : null);
  }

  grown(trace) {
    if (trace === this.trace && this.follows) this.state.at = Math.max(0, trace.readUpTo - 1);
    if (trace === this.trace || this.state.view === "compare") this.changed("grown");
  }

  complain(problem) {
    this.alert.textContent = problem;
    if (this.form) this.form.problem.textContent = problem;
  }

  // --- the page ---

  build() {
    const hands = {
      chooseExpert: (layer, expert) => this.set({ layer, expert }),
      chooseLayer: (layer) => this.set({ layer, expert: -1 }),
      setAt: (at) => this.go(at), setBrush: (brush) => this.set({ brush }),
    };
    this.ribbon = new Ribbon("The text, token by token", (at) => this.go(at));
    const steer = this.packs ? null : (...given) => this.steer(...given);
    this.flow = new Flow(hands);
    this.token = [this.flow, new Candidates(), new Lens(), new Now(hands), new Stream(), new Attention()];
    this.heat = new Heat(hands);
    this.range = [new Load(hands), this.heat, new Margins(), new Company(hands), new Card({ steer }), new Atlas(hands)];
    this.effects = new Effects({ measure: (masked) => this.measure({ masked }) });
    this.compare = new Compare({ setAt: (at) => this.go(at), texts: () => this.texts.values(), changed: () => this.changed("trace") });
    this.lapse = new Lapse({ ask: () => this.readThrough() });
    this.training = new Training({
      open: (name, take) => this.follow(name, take), list: () => this.fetch("/api/runs"),
      act: (name, what) => this.fetch(`/api/runs/${encodeURIComponent(name)}/${what}`, {}),
    });
    this.alert = el("p", { class: "problem", role: "alert" });
    this.heading = el("p", { class: "heading" }, "Coterie");
    this.exporter = el("button", { type: "button", hidden: true, onclick: () => this.export(), title: "All texts in one file that works offline" }, "Export");
    this.select = el("select", { "aria-label": "text on show", hidden: true, onchange: () => this.open(Number(this.select.value)) });
    this.tabs = Object.fromEntries(Object.entries(VIEWS).map(([view, name]) => [view, el("button", {
      type: "button", role: "tab", id: `tab-${view}`, "aria-controls": `view-${view}`, onclick: () => this.show(view),
    }, name)]));
    this.views = Object.fromEntries(Object.keys(VIEWS).map((view) => [view, el("div", { role: "tabpanel", id: `view-${view}`, "aria-labelledby": `tab-${view}`, class: "view" })]));
    this.lookAt = el("p", { class: "lookat", "aria-live": "polite" });
    this.legend = el("div");
    this.views.text.append(el("div", { class: "reading" }, this.transport(), this.legend, this.ribbon.node, this.lookAt), el("div", { class: "panels" }, ...this.token.map((each) => each.panel.node)));
    this.views.experts.append(el("div", { class: "panels" }, ...this.range.map((each) => each.panel.node)));
    this.effects.panel.node.hidden = this.lapse.panel.node.hidden = true;
    this.views.compare.append(el("div", { class: "panels wide" }, this.compare.panel.node, this.effects.panel.node, this.lapse.panel.node));
    this.views.training.append(el("div", { class: "panels wide" }, ...this.training.panels.map((each) => each.node)));
    this.writing = el("div");
    document.getElementById("page").append(
      el("header", {}, this.heading, el("div", { role: "tablist", "aria-label": "Views" }, ...Object.values(this.tabs)),
        el("div", { class: "tools" }, this.select, this.packs ? null : this.exporter,
          el("button", { type: "button", onclick: () => this.turn(), title: "light or dark" }, "◐"),
          el("button", { type: "button", onclick: () => this.help.showModal(), "aria-label": "help: keys" }, "?"))),
      this.alert, el("main", { id: "views" }, this.writing, ...Object.values(this.views)), this.helpDialog());
    document.addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    this.show("text");
  }

  transport() {
    const button = (label, words, act) => el("button", { type: "button", "aria-label": words, title: words, onclick: act }, label);
    this.playButton = button("▶", "replay", () => this.play());
    this.slider = el("input", { type: "range", min: "1", value: "1", "aria-label": "token", oninput: () => this.go(Number(this.slider.value) - 1) });
    this.colour = el("select", { "aria-label": "colour by", onchange: () => this.set({ colouring: this.colour.value }) },
      ...Object.entries(COLOURINGS).map(([value, name]) => el("option", { value }, name)));
    this.layer = el("select", { "aria-label": "layer", onchange: () => this.set({ layer: Number(this.layer.value) }) });
    return el("div", { class: "transport" },
      button("|◀", "first token", () => this.go(0)), button("‹", "one token back", () => this.go(this.state.at - 1)), this.playButton,
      button("›", "one token forth", () => this.go(this.state.at + 1)), button("▶|", "last token", () => this.go(Infinity)),
      this.slider, el("label", {}, "colour ", this.colour), el("label", {}, "layer ", this.layer));
  }

  helpDialog() {
    this.help = el("dialog", { "aria-label": "Keys" }, el("h2", {}, "Keys"),
      el("dl", { class: "pairs" }, ...KEYS.flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])),
      el("form", { method: "dialog" }, el("button", {}, "Close")));
    return this.help;
  }

  offerWriting(model, texts) {
    this.form = new WriteForm(model, (ask) => this.write(ask));
    replace(this.writing, el("details", { class: "writing", open: !texts.length }, el("summary", {}, "Write a text"), this.form.node));
  }

  export() {
    location.href = `/api/export?texts=${[...this.texts.keys()].join(",")}`;
  }

  turn() {
    const dark = document.documentElement.dataset.look ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.look = dark === "dark" ? "light" : "dark";
    this.repaint();
  }

  repaint() {
    forgetTheme();
    this.changed("trace");
    this.training.redraw();
  }

  show(view) {
    this.state.view = view;
    for (const [name, tab] of Object.entries(this.tabs)) {
      tab.setAttribute("aria-selected", String(name === view));
      this.views[name].hidden = name !== view;
    }
    this.writing.hidden = view === "training";
    this.training.shown = view === "training";
    if (view === "training") this.training.start(this.run).catch((error) => this.complain(error.message));
    this.changed("trace");
  }

  key(event) {
    if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey || !this.trace) return;
    const { layer, expert, colouring, at } = this.state;
    const { routed, header } = this.trace;
    const turn = (values, now, by) => values[(Math.max(values.indexOf(now), 0) + by + values.length) % values.length];
    const experts = Array.from({ length: header.experts[layer] ?? 0 }, (_, each) => each);
    const acts = {
      " ": () => this.play(), ArrowLeft: () => this.go(at - 1), ArrowRight: () => this.go(at + 1),
      Home: () => this.go(0), End: () => this.go(Infinity), "?": () => this.help.showModal(),
      ArrowUp: () => routed.length && this.set({ layer: turn(routed, layer, 1), expert: -1 }),
      ArrowDown: () => routed.length && this.set({ layer: turn(routed, layer, -1), expert: -1 }),
      "]": () => experts.length && this.set({ expert: turn(experts, expert, expert < 0 ? 0 : 1) }),
      "[": () => experts.length && this.set({ expert: turn(experts, expert, -1) }),
      m: () => this.form && expert >= 0 && this.steer("masked", layer, expert),
      f: () => this.form && expert >= 0 && this.steer("forced", layer, expert),
      M: () => this.form && expert >= 0 && this.steer("masked", layer, expert, true),
      F: () => this.form && expert >= 0 && this.steer("forced", layer, expert, true),
      c: () => this.set({ colouring: turn(Object.keys(COLOURINGS), colouring, 1) }),
    };
    const numbered = Object.keys(VIEWS)[Number(event.key) - 1];
    const act = acts[event.key] ?? (numbered && !this.tabs[numbered].hidden && (() => this.show(numbered)));
    // A button or a scrolled part does with blanks and arrows what it always does.
    const own = event.target.closest("button, summary, [role=region]") && (event.key === " " || event.key.startsWith("Arrow"));
    if (!act || own) return;
    event.preventDefault();
    act();
  }

  // --- what is looked at ---

  set(patch) {
    Object.assign(this.state, patch);
    this.changed(patch.brush === undefined ? "choice" : "brush");
  }

  go(at) {
    this.follows = at >= this.trace.readUpTo - 1 && !this.trace.done;
    this.state.at = Math.max(0, Math.min(this.trace.length - 1, at));
    this.changed("at");
  }

  play() {
    if (this.timer) clearInterval(this.timer);
    else {
      if (this.state.at >= this.trace.readUpTo - 1) this.go(0);
      this.timer = setInterval(() => {
        if (this.state.at >= this.trace.readUpTo - 1 && this.trace.done) this.play();
        else this.go(this.state.at + 1);
      }, 1000 / PACE);
      this.playButton.textContent = "⏸";
      return;
    }
    this.timer = null;
    this.playButton.textContent = "▶";
  }

  changed(what) {
    this.what = this.what ?? new Set();
    this.what.add(what);
    if (this.what.size === 1 && !this.asked) {
      this.asked = true;
      requestAnimationFrame(() => this.draw());
    }
  }

  draw() {
    const { what, state, trace } = this;
    this.asked = false;
    this.what = null;
    if (!trace?.length) return;
    state.at = Math.max(0, Math.min(state.at, trace.length - 1));
    if (state.view === "text") {
      this.drawControls(trace);
      this.ribbon.update(trace, state);
      this.lookAt.textContent = headingOf(trace, state.at);
      for (const panel of this.token) panel.update(trace, state);
      if (!this.marked && trace.done) performance.mark("text shown");
      this.marked = trace.done;
    } else if (state.view === "experts") {
      const late = what.size === 1 && what.has("grown") && !trace.done && performance.now() - (this.drawn ?? 0) < SLOW;
      if (late) {
        clearTimeout(this.later);
        this.later = setTimeout(() => this.changed("trace"), SLOW);
        return;
      }
      this.drawn = performance.now();
      for (const panel of what.size === 1 && what.has("at") ? [this.heat] : this.range) panel.update(trace, state);
    } else if (state.view === "compare") {
      this.compare.update(state);
      this.lapse.update(state);
    }
  }

  drawControls(trace) {
    const { at, colouring, layer } = this.state;
    this.slider.max = trace.length;
    this.slider.value = at + 1;
    this.slider.setAttribute("aria-valuetext", headingOf(trace, at));
    this.colour.value = colouring;
    replace(this.layer, ...trace.routed.map((each) => el("option", { value: each, selected: each === layer }, String(each))));
    const key = `${colouring} ${layer} ${trace.id}`;
    if (this.legendOf !== key) replace(this.legend, legend(trace, colouring, layer));
    this.legendOf = key;
  }
}

const app = new App();
globalThis.coterie = app; // for whoever looks at the page by hand
app.begin().catch((error) => app.complain(`The page could not begin: ${error.message}`));
