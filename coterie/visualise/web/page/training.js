// All runs, their curves beside each other, and how the load of each expert came to be.

import { el, Canvas, Panel, table, theme, PALETTE, replace, number, plain, printable, quoted, ramp } from "./dom.js";

const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [1, 2], [12, 4]];
const MOST_CURVES = 6;
const written = (text) => text.split("\n").map(printable).join("\n");
const CELL = 12;

export class Training {
  // `open(name, take)` follows a run's curves and returns a function that stops following;
  // `act(name, what)` stops or resumes it, where `control` says that this may be.
  constructor({ open, list, act }) {
    Object.assign(this, { open, list, act, control: false });
    this.followed = new Map();
    this.runs = new Panel("runs", "Runs", "Losses in nats per token: validation as measured, training smoothed. Load: largest over mean, of the worst layer, over the last tenth of the measurements.", { open: true });
    this.runs.details.hidden = true;
    this.said = el("p", { class: "words", role: "status" });
    this.runs.node.append(this.said);
    this.curves = new Panel("curves", "Losses", "Training loss, smoothed, nats per token (lines) and validation loss as measured (dots), over optimizer steps.");
    this.picture = new Canvas("Losses of the chosen runs over their steps", 280, (...given) => this.draw(...given));
    this.curves.body.append(this.picture.node);
    this.lapse = new Panel("lapse", "How the experts came to share the work", "Load: count · E / Σ count of a stretch of steps; 1.00, the line, is fair. Left: now; right: all steps, the scale ends at 2.");
    this.slider = el("input", { type: "range", min: "0", value: "0", "aria-label": "step", oninput: () => this.frame(Number(this.slider.value)) });
    this.play = el("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.step = el("output");
    this.which = el("select", { "aria-label": "run", onchange: () => this.redrawLapse() });
    this.film = new Canvas("Load of each expert at a step, and over all steps", 200, (...given) => this.drawLapse(...given));
    this.lapse.body.append(el("p", { class: "controls" }, "Run ", this.which, " ", this.play, " ", this.slider, " ", this.step), this.film.node);
    this.told = new Panel("told", "What experts came to tell", "Mutual information of a token's expert with the token, nats, in the tokens of one look (solid), and with labels dealt at random (dotted): experts specialise as the lines part. Favourites: lift, the share of the token's weight over the share of all.", { open: true });
    this.told.details.querySelector("summary").textContent = "Favourites at the latest look";
    this.story = new Canvas("Information of experts about tokens over the steps, beside chance", 220, (...given) => this.drawStory(...given));
    this.told.body.append(this.story.node);
    this.samples = new Panel("samples", "What it wrote", "Samples of the run, the latest first, as its configuration asks for them.");
    this.samples.details.hidden = true;
    this.panels = [this.runs, this.curves, this.lapse, this.told, this.samples];
    this.at = null;
  }

  async start(name) {
    if (this.started) return;
    this.started = true;
    await this.refresh();
    const first = this.listing.find((run) => run.name === name) ?? this.listing[0];
    if (first) this.follow(first.name);
    setInterval(() => document.visibilityState === "visible" && this.shown && this.refresh(), 5000);
  }

  async refresh() {
    this.listing = await this.list();
    const value = (number_, digits = 3) => (number_ === null || number_ === undefined ? "–" : number(number_, digits));
    const focused = document.activeElement?.id;
    replace(this.runs.body, table("Runs, the latest first", ["run", "status", "steps", "training", "validation", "tokens/s", "load, max/mean", "dead", ...(this.control ? ["control"] : [])],
      this.listing.map((run) => [
        el("label", { class: "run" }, el("input", { type: "checkbox", id: `follow-${run.name}`, checked: this.followed.has(run.name), onchange: (event) => (event.target.checked ? this.follow(run.name) : this.unfollow(run.name)) }), ` ${run.name}`),
        run.problem ?? (run.owned ? "training now" : run.status === "running" ? "no end recorded" : run.status), run.steps_planned ? `${plain(run.steps)} of ${plain(run.steps_planned)}` : plain(run.steps),
        value(run.training_loss), value(run.validation_loss), run.tokens_per_second ? plain(Math.round(run.tokens_per_second)) : "–", value(run.max_over_mean_load, 2), value(run.dead_experts, 0),
        ...(this.control ? [this.button(run)] : []),
      ])));
    if (focused) document.getElementById(focused)?.focus(); // the table is new, whoever stood in it stays
    const running = this.listing.filter((run) => run.owned).length;
    this.runs.say(this.listing.length ? `${plain(this.listing.length)} ${this.listing.length === 1 ? "run" : "runs"}; ${running} ${running === 1 ? "is" : "are"} being trained now. Tick some, to see their curves together.` : "There are no runs here yet: coterie train quickstart begins one.");
  }

  button(run) {
    if (run.status === "finished" && !run.owned) return "–";
    const what = run.owned ? "stop" : "resume";
    return el("button", { type: "button", id: `act-${run.name}`, "aria-label": `${what} ${run.name}`, onclick: () => this.confirm(run.name, what) }, what === "stop" ? "Stop" : "Resume");
  }

  confirm(name, what) {
    const words = what === "stop"
      ? `Stop ${name}? It ends after its present step and writes a checkpoint, as Ctrl-C in its terminal would; it can be resumed.`
      : `Resume ${name}? “coterie train --resume” starts as a process of its own on the machine of this server, and goes on when the page is closed.`;
    const dialog = el("dialog", { id: "confirm", role: "alertdialog", "aria-label": words }, el("p", {}, words),
      el("form", { method: "dialog", class: "controls" }, el("button", { value: "no", autofocus: true }, "Leave it"), el("button", { value: "yes" }, what === "stop" ? "Stop it" : "Resume it")));
    dialog.addEventListener("close", async () => {
      dialog.remove();
      document.getElementById(`act-${name}`)?.focus();
      if (dialog.returnValue !== "yes") return;
      this.said.textContent = await this.act(name, what).then(({ done }) => done, (error) => error.message);
      await this.refresh();
    });
    this.runs.node.append(dialog);
    dialog.showModal();
  }

  follow(name) {
    if (this.followed.has(name) || this.followed.size >= MOST_CURVES) return;
    const entry = { name, data: null };
    this.followed.set(name, entry);
    entry.stop = this.open(name, (data) => {
      entry.data = data;
      this.redraw();
    });
    this.refresh();
  }

  unfollow(name) {
    this.followed.get(name)?.stop();
    this.followed.delete(name);
    this.redraw();
  }

  get loaded() {
    return [...this.followed.values()].filter((entry) => entry.data);
  }

  redraw() {
    this.picture.redraw();
    const chosen = this.which.value;
    replace(this.which, ...this.loaded.map(({ name }) => el("option", { value: name, selected: name === chosen }, name)));
    this.curves.say(this.loaded.map(({ name, data }) => {
      const [step, loss] = data.loss.at(-1) ?? [0, NaN];
      const held = data.validation.at(-1);
      return `${name} is at step ${plain(step)} with a training loss of ${number(loss)}${held ? `, validation ${number(held[1])} at step ${plain(held[0])}` : ""}`;
    }).join("; ") || "Tick a run above.");
    this.curves.tell(() => this.loaded.map(({ name, data }) => table(`Validation losses of ${name}`, ["step", name], data.validation.map(([step, loss]) => [plain(step), number(loss, 4)]))));
    this.redrawLapse();
  }

  get shownRun() {
    return this.followed.get(this.which.value)?.data ?? this.loaded[0]?.data;
  }

  redrawLapse() {
    const run = this.shownRun;
    const loads = run?.loads ?? [];
    const frames = loads[0]?.steps.length ?? 0;
    this.slider.max = Math.max(0, frames - 1);
    if (this.at === null || this.at >= frames) this.at = Math.max(0, frames - 1);
    this.film.resize(loads.reduce((sum, each) => sum + Math.max(each.share[0].length * CELL, 60) + 26, 0) || 40);
    this.frame(this.at);
    this.tellStory(run);
    replace(this.samples.body, ...(run?.samples ?? []).toReversed().map((sample) => el("article", {}, el("h3", {}, `step ${plain(sample.step)}`), el("pre", {}, el("i", {}, written(sample.prompt)), written(sample.text)))));
    this.samples.say(run ? `${run.samples.length === 1 ? "The sample" : `The latest ${plain(run.samples.length)} samples`} of ${run.name}; the prompt in italics.` : "");
  }

  tellStory(run) {
    const told = run?.told ?? [];
    this.story.node.hidden = this.told.details.hidden = !told.length;
    this.story.redraw();
    this.told.say(told.length ? told.map((each) => {
      const [step, nats] = each.token.at(-1) ?? [0, NaN];
      return `in layer ${each.layer} ${number(nats, 2)} nats at step ${plain(step)} (chance ${number(each.token_null.at(-1)?.[1], 2)})`;
    }).join("; ").replace(/^(.*)$/, "A token's expert tells of the token $1.") : "This run has recorded no looks into its routers (train.watch_every).");
    this.told.tell(() => table("Favourite tokens of each expert at the latest look", ["expert", "weight", "favourites by lift"], told.flatMap((each) =>
      each.experts.map((expert, i) => [`${each.layer}:${i}`, number(expert.weight, 2), expert.favourites.map(([word, , lift]) => `${quoted(word, 12)} ×${lift.toFixed(1)}`).join("  ") || "–"]))));
  }

  drawStory(context, width, height) {
    const told = this.shownRun?.told ?? [];
    const points = told.flatMap((each) => [...each.token, ...each.token_null]);
    if (!points.length) return;
    const look = theme();
    const right = points.reduce((most, [step]) => Math.max(most, step), 1);
    const high = points.reduce((most, [, nats]) => Math.max(most, nats), 1e-9) * 1.08;
    const x = (step) => 46 + (step / right) * (width - 60);
    const y = (nats) => height - 46 - (nats / high) * (height - 60);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let line = 0; line <= 2; line++) {
      context.fillStyle = look.hair;
      context.fillRect(46, y((high * line) / 2), width - 60, 1);
      context.fillStyle = look.soft;
      context.fillText(number((high * line) / 2, 2), 4, y((high * line) / 2));
    }
    context.textAlign = "right";
    context.fillText(`${plain(right)} steps`, width - 12, height - 32);
    context.textAlign = "left";
    told.forEach((each, i) => {
      context.strokeStyle = context.fillStyle = PALETTE[(i + 4) % PALETTE.length];
      context.lineWidth = 2;
      for (const [curve, dash] of [[each.token, []], [each.token_null, [2, 4]]]) {
        context.setLineDash(dash);
        context.beginPath();
        curve.forEach(([step, nats]) => context.lineTo(x(step), y(nats)));
        context.stroke();
      }
      context.setLineDash([]);
      context.fillRect(46 + 84 * i, height - 14, 20, 3);
      context.fillStyle = look.ink;
      context.fillText(`layer ${each.layer}`, 70 + 84 * i, height - 12);
    });
  }

  frame(at) {
    this.at = at;
    this.slider.value = at;
    const loads = this.shownRun?.loads ?? [];
    this.step.textContent = loads.length ? `step ${plain(loads[0].steps[at])}` : "";
    this.film.redraw();
    const spread = (frame) => Math.max(...loads.map((each) => Math.max(...each.share[frame])));
    this.lapse.say(loads.length ? `At step ${plain(loads[0].steps[at])} the busiest expert took ${number(spread(at), 2)} times its fair share; at the beginning ${number(spread(0), 2)}, at the end ${number(spread(loads[0].steps.length - 1), 2)}.` : "This run has recorded no loads of experts.");
    this.lapse.tell(() => table("Load of each expert at this step", ["layer", ...Array.from({ length: Math.max(0, ...loads.map((each) => each.share[0].length)) }, (_, expert) => String(expert))],
      loads.map((each) => [`layer ${each.layer}`, ...each.share[at].map((share) => number(share, 2))])));
  }

  toggle() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = null;
    } else {
      if (this.at >= Number(this.slider.max)) this.at = -1;
      this.timer = setInterval(() => {
        if (this.at >= Number(this.slider.max)) this.toggle();
        else this.frame(this.at + 1);
      }, 90);
    }
    this.play.textContent = this.timer ? "Pause" : "Play";
  }

  draw(context, width, height) {
    const look = theme();
    const points = this.loaded.flatMap(({ data }) => [...data.loss, ...data.validation]);
    if (!points.length) return;
    const right = points.reduce((most, [step]) => Math.max(most, step), 1);
    const losses = points.map(([, loss]) => loss).filter(Number.isFinite);
    const low = losses.reduce((a, b) => Math.min(a, b)) * 0.97;
    const high = losses.reduce((a, b) => Math.max(a, b));
    const x = (step) => 46 + (step / right) * (width - 60);
    const y = (loss) => 12 + ((high - loss) / Math.max(high - low, 1e-9)) * (height - 60);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let line = 0; line <= 4; line++) {
      const loss = low + ((high - low) * line) / 4;
      context.fillStyle = look.hair;
      context.fillRect(46, y(loss), width - 60, 1);
      context.fillStyle = look.soft;
      context.fillText(number(loss, 2), 4, y(loss));
    }
    context.fillText("0", 46, height - 38);
    context.textAlign = "right";
    context.fillText(`${plain(right)} steps`, width - 12, height - 38);
    context.textAlign = "left";
    let at = 46;
    this.loaded.forEach(({ name, data }, i) => {
      context.strokeStyle = context.fillStyle = PALETTE[(i + 4) % PALETTE.length];
      context.lineWidth = 2;
      context.setLineDash(DASHES[i % DASHES.length]);
      context.beginPath();
      data.loss.forEach(([step, loss]) => context.lineTo(x(step), y(loss)));
      context.stroke();
      context.beginPath();
      context.moveTo(at, height - 14);
      context.lineTo(at + 22, height - 14);
      context.stroke();
      context.setLineDash([]);
      for (const [step, loss] of data.validation) {
        context.beginPath();
        context.arc(x(step), y(loss), 3.5, 0, 7);
        context.fill();
      }
      context.fillStyle = look.ink;
      context.fillText(name, at + 28, height - 14);
      at += 48 + context.measureText(name).width;
    });
  }

  drawLapse(context, width) {
    const look = theme();
    const loads = this.shownRun?.loads ?? [];
    const left = Math.min(170, width * 0.36);
    let top = 0;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const { layer, share } of loads) {
      const count = share[0].length;
      const cell = Math.max(CELL, 60 / count);
      context.fillStyle = look.soft;
      context.fillText(`layer ${layer}`, 0, top + 9);
      const first = top + 20;
      for (let expert = 0; expert < count; expert++) {
        const y = first + expert * cell;
        const now = share[Math.max(0, Math.min(this.at, share.length - 1))][expert];
        context.fillStyle = look.soft;
        context.fillText(String(expert), 0, y + cell / 2);
        context.fillStyle = PALETTE[expert % PALETTE.length];
        context.fillRect(20, y + 1, Math.min(now / 2, 1) * (left - 40), cell - 2);
        share.forEach((frame, i) => {
          context.fillStyle = ramp(frame[expert] / 2);
          const [from, to] = [i, i + 1].map((each) => left + ((width - left) * each) / share.length);
          context.fillRect(from, y, to - from + 0.3, cell - 1);
        });
      }
      context.fillStyle = look.ink;
      context.fillRect(20 + (left - 40) / 2, first, 1, count * cell);
      context.fillStyle = look.alert;
      context.fillRect(left + ((width - left) * (this.at + 0.5)) / share.length, first, 1.5, count * cell);
      top += Math.max(count * CELL, 60) + 26;
    }
  }
}
