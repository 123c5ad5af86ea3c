// A strip of frames with a needle, and the key frames of one thing on it: scrub, play, add, move and delete keys,
// choose how a key is reached. It keeps no keys itself:
//   frames(), frame(), keys() -> [{frame, way}] in order, title(): whose keys they are, canKey()
//   seek(frame);  addKey(frame), removeKey(frame), setWay(frame, way): finished changes
//   moveKey(index, frame) on the way, keyMoved() when it is done
//   ways: names, travel(t, way) -> 0..1, drawn between keys;  player: a Player
// Keys beyond the clip are shown behind its end, so that they can be dragged back. With `keyless` there are only frames,
// and of the above frames(), frame(), seek(frame) and player are enough.

import { icon, make } from "./editor_style.mjs";

const CURVE_STEPS = 12;
const LEAST_PIXELS = 34;
const STEPS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000];
const FALLBACK_WIDTH = 400;
const ENDS = ["pointerup", "pointercancel", "lostpointercapture"];
const KEYLESS = { ways: [], keys: () => [], canKey: () => false };

export class Timeline {
  constructor(options) {
    Object.assign(this, options.keyless ? KEYLESS : {}, options);
    this.#build();
  }

  // How many frames the strip spans: the clip, or more where a key lies beyond it.
  get span() {
    return Math.max(this.frames(), (this.keys().at(-1)?.frame ?? 0) + 1, 2);
  }

  refresh() {
    const frame = this.frame(),
      frames = this.frames(),
      keys = this.keys(),
      here = keys.find((key) => key.frame === frame);
    this.shownSpan = this.span;
    this.#drawScale();
    this.#drawKeys(keys, frame, frames);
    for (const needle of this.needles) needle.style.left = this.#left(frame);
    const label = `Frame ${frame} of 0 to ${frames - 1}${here ? ", on a key" : ""}`;
    this.scale.setAttribute("aria-valuemax", frames - 1);
    this.scale.setAttribute("aria-valuenow", frame);
    this.scale.setAttribute("aria-valuetext", label);
    if (this.number !== this.number.getRootNode().activeElement || this.player.playing) this.number.value = frame;
    this.number.max = frames - 1;
    this.total.textContent = `/ ${frames - 1}`;
    this.#face(
      this.play,
      this.player.playing ? "pause" : "play",
      this.player.playing ? "Pause (Space)" : "Play (Space)",
    );
    this.toggle.setAttribute("aria-pressed", Boolean(here));
    this.toggle.disabled = !this.canKey();
    this.#face(this.toggle, "key", here ? "Delete the key here (K)" : "Set a key here (K)");
    this.previous.disabled = !keys.some((key) => key.frame < frame);
    this.next.disabled = !keys.some((key) => key.frame > frame);
    this.way.disabled = !here || !this.canKey() || here === keys[0];
    this.way.value = here?.way ?? this.ways[0];
  }

  // To the key before or after the current frame. Returns whether there is one.
  step(direction) {
    const frame = this.frame(),
      keys = this.keys();
    const to = direction < 0 ? keys.findLast((key) => key.frame < frame) : keys.find((key) => key.frame > frame);
    if (to) this.seek(to.frame);
    return Boolean(to);
  }

  toggleKey() {
    const frame = this.frame();
    if (this.keys().some((key) => key.frame === frame)) this.removeKey(frame);
    else this.addKey(frame);
  }

  // Keys that work wherever the focus is in the editor. Returns whether it was used.
  key(event) {
    const frame = this.frame(),
      key = event.key.toLowerCase();
    if (key === " ") this.player.toggle(frame);
    else if (key === "k" && this.canKey()) this.toggleKey();
    else if (key === ",") this.#seek(frame - 1);
    else if (key === ".") this.#seek(frame + 1);
    else if (key === "<") this.step(-1);
    else if (key === ">") this.step(1);
    else if (key === "home") this.#seek(0);
    else if (key === "end") this.#seek(this.frames() - 1);
    else return false;
    return true;
  }

  #seek(frame) {
    this.player.pause();
    this.seek(Math.min(Math.max(Math.round(frame), 0), Math.max(this.frames() - 1, 0)));
  }

  #left(frame) {
    return `${(100 * frame) / (this.shownSpan - 1)}%`;
  }

  #face(button, name, label) {
    if (button.title === label) return;
    button.innerHTML = icon(name);
    button.title = label;
    button.setAttribute("aria-label", label.replace(/ \(.*/, ""));
  }

  #button(id, name, label, run) {
    const button = make("button", { type: "button", "data-id": id, onclick: run });
    this.#face(button, name, label);
    return button;
  }

  #build() {
    this.previous = this.#button("previous-key", "previous", "Key before (<)", () => this.step(-1));
    this.play = this.#button("play", "play", "Play (Space)", () => this.player.toggle(this.frame()));
    this.next = this.#button("next-key", "next", "Key after (>)", () => this.step(1));
    this.number = make("input", {
      type: "number",
      min: 0,
      step: 1,
      "aria-label": "Frame",
      title: "Frame (, and . go one back and ahead)",
      "data-id": "frame",
      oninput: () => this.number.value !== "" && this.#seek(Number(this.number.value)),
    });
    this.total = make("span", { class: "total" });
    this.toggle = this.#button("key", "key", "Set a key here (K)", () => this.toggleKey());
    this.way = make(
      "select",
      {
        "aria-label": "How this key is reached",
        title: "How this key is reached from the one before",
        "data-id": "way",
        onchange: () => this.setWay(this.frame(), this.way.value),
      },
      ...this.ways.map((way) => make("option", { value: way }, way)),
    );
    const bar = make(
      "div",
      { class: "bar", role: "toolbar", "aria-label": "Time" },
      make("div", { class: "group", role: "group" }, ...(this.keyless ? [this.play] : [this.previous, this.play, this.next])),
      this.number,
      this.total,
      ...(this.keyless
        ? []
        : [make("span", { class: "spring" }), make("div", { class: "group", role: "group" }, this.toggle), this.way]),
    );
    this.ticks = make("div", { class: "ticks" });
    this.needles = [make("div", { class: "needle" }), make("div", { class: "needle" })];
    this.scale = make(
      "div",
      {
        class: "scale",
        role: "slider",
        tabindex: 0,
        "aria-label": "Current frame",
        "aria-valuemin": 0,
        "data-id": "time",
        onkeydown: (event) => this.#scaleKey(event),
      },
      this.ticks,
      this.needles[0],
    );
    this.beyond = make("div", { class: "beyond" });
    this.curves = make("div", { class: "curves" });
    this.marks = make("div", { class: "marks" });
    this.lane = make("div", { class: "lane" }, this.beyond, this.curves, this.needles[1], this.marks);
    this.track = make(
      "div",
      {
        class: "track",
        role: "group",
        "aria-label": "Keys",
        ondblclick: (event) =>
          event.composedPath()[0].classList.contains("key") || !this.canKey() || this.addKey(this.frame()),
      },
      this.lane,
    );
    for (const strip of [this.scale, this.track]) this.#scrubs(strip);
    this.element = make(
      "div",
      { class: "time", role: "group", "aria-label": this.label ?? "Timeline" },
      bar,
      this.scale,
      ...(this.keyless ? [] : [this.track]),
    );
    this.observer = new ResizeObserver(() => this.refresh());
    this.observer.observe(this.scale);
  }

  dispose() {
    this.observer.disconnect();
    this.player.pause();
  }

  // Pressing and dragging on a strip moves the needle.
  #scrubs(strip) {
    let pressed = null;
    strip.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.composedPath()[0].classList.contains("key")) return;
      pressed = event.pointerId;
      strip.setPointerCapture(pressed);
      this.#seek(this.#frameAt(event));
    });
    strip.addEventListener("pointermove", (event) => event.pointerId === pressed && this.#seek(this.#frameAt(event)));
    for (const name of ENDS) strip.addEventListener(name, () => (pressed = null));
  }

  #frameAt(event) {
    const box = (this.keyless ? this.scale : this.lane).getBoundingClientRect();
    return Math.round(((event.clientX - box.left) / Math.max(box.width, 1)) * (this.shownSpan - 1));
  }

  #scaleKey(event) {
    const frame = this.frame(),
      step = event.shiftKey ? 10 : 1;
    if (event.key === "ArrowLeft" || event.key === "ArrowDown") this.#seek(frame - step);
    else if (event.key === "ArrowRight" || event.key === "ArrowUp") this.#seek(frame + step);
    else if (event.key === "PageUp") this.step(-1);
    else if (event.key === "PageDown") this.step(1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #drawScale() {
    const width = this.scale.clientWidth || FALLBACK_WIDTH,
      wanted = `${this.shownSpan} ${width}`;
    if (wanted === this.drawnScale) return;
    this.drawnScale = wanted;
    const gap = width / (this.shownSpan - 1);
    const named = STEPS.find((step) => step * gap >= LEAST_PIXELS) ?? STEPS.at(-1),
      every = STEPS.find((step) => step * gap >= 5) ?? named;
    const marks = [];
    for (let frame = 0; frame < this.shownSpan; frame += every) {
      const left = `left: ${this.#left(frame)}`,
        name = frame % named === 0;
      marks.push(make("i", { style: left, class: name ? "named" : "" }));
      if (name) marks.push(make("b", { style: left }, String(frame)));
    }
    this.ticks.replaceChildren(...marks);
  }

  #drawKeys(keys, frame, frames) {
    const beyond = this.shownSpan > frames;
    this.beyond.hidden = !beyond;
    this.beyond.style.left = this.#left(frames - 0.5);
    // Elements are used again, so that one that is dragged or focused stays.
    while (this.marks.children.length > keys.length) this.marks.lastChild.remove();
    while (this.marks.children.length < keys.length) this.marks.append(this.#mark(this.marks.children.length));
    keys.forEach((key, index) => {
      const mark = this.marks.children[index],
        ahead = key.frame >= frames;
      mark.style.left = this.#left(key.frame);
      mark.disabled = !this.canKey();
      mark.className = `key${key.frame === frame ? " here" : ""}${ahead ? " beyond-end" : ""}`;
      const words = `Key at frame ${key.frame}${index ? `, ${key.way}` : ""}${ahead ? ", beyond the clip" : ""}`;
      mark.title = `${words}. Drag it, or move it with the arrow keys; Delete removes it.`;
      mark.setAttribute("aria-label", `${this.title()}: ${words}`);
    });
    const wanted = JSON.stringify([this.shownSpan, keys.map((key) => [key.frame, key.way])]);
    if (wanted === this.drawnCurves) return;
    this.drawnCurves = wanted;
    this.curves.innerHTML = keys
      .slice(1)
      .map((key, index) => this.#curve(keys[index], key))
      .join("");
  }

  #curve(from, to) {
    const steps =
      to.way === "hold"
        ? "M0 16H100V0"
        : `M${Array.from(
            { length: CURVE_STEPS + 1 },
            (_, step) => `${(100 * step) / CURVE_STEPS} ${16 - 16 * this.travel(step / CURVE_STEPS, to.way)}`,
          ).join("L")}`;
    const width = (100 * (to.frame - from.frame)) / (this.shownSpan - 1);
    return (
      `<svg class="way" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true" ` +
      `style="left: ${this.#left(from.frame)}; width: ${width}%"><path d="${steps}"/></svg>`
    );
  }

  #mark(index) {
    const mark = make("button", { type: "button", class: "key", "data-id": `key-${index}` });
    let pressed = null,
      moved = false;
    mark.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.canKey()) return;
      this.player.pause();
      [pressed, moved] = [event.pointerId, false];
      mark.setPointerCapture(pressed);
      this.seek(this.keys()[index].frame);
    });
    mark.addEventListener("pointermove", (event) => {
      if (event.pointerId === pressed) moved = this.#move(index, this.#frameAt(event)) || moved;
    });
    for (const name of ENDS)
      mark.addEventListener(name, () => {
        if (moved) this.keyMoved();
        [pressed, moved] = [null, false];
      });
    mark.addEventListener("click", () => this.keys()[index] && this.seek(this.keys()[index].frame));
    mark.addEventListener("keydown", (event) => this.#markKey(event, index));
    return mark;
  }

  #markKey(event, index) {
    const { frame } = this.keys()[index],
      step = event.shiftKey ? 10 : 1;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      if (this.#move(index, frame + (event.key === "ArrowLeft" ? -step : step))) this.keyMoved();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.removeKey(frame);
      (this.marks.children[Math.min(index, this.marks.children.length - 1)] ?? this.scale).focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // A key stays between its neighbours and in the clip.
  #move(index, frame) {
    const keys = this.keys();
    const low = index ? keys[index - 1].frame + 1 : 0;
    const high = Math.min(index + 1 < keys.length ? keys[index + 1].frame - 1 : Infinity, this.frames() - 1);
    const to = Math.min(Math.max(frame, low), high);
    if (to === keys[index].frame || high < low) return false;
    this.moveKey(index, to);
    this.seek(to);
    return true;
  }
}
