// The base of the pack's editors: a DOM widget with a canvas over the connected pictures, tools, undo, keyboard.
// The state is one text in a STRING widget of the node, which is hidden; nothing else is saved. A viewer has none.
//
// An editor gives `mountEditor` (mount.mjs) a function that makes its hands; all but the first two may be left out:
//   read(text) -> {state, problem, locked};  write(state) -> text
//   refreshed(): the state or the selection changed;  draw(context): the overlay, in CSS pixels
//   fitWords: what the button says that shows all
//   describe() -> the line below, for people and screen readers;  keyWords: what keys do, in words
//   drawPicture(context, pane) -> true where it painted the pane's rectangle itself
//   buttons: [[{id, icon, label, keys, run(), enabled(), pressed(), always}]], in groups
//   handles() -> [{at: place, radius, cursor, drag(spot, event, start), end(), cancel()}], the last on top
//   press(spot, event) -> what is dragged, as a handle, or null;  hover(spot);  cursor(spot);  double(spot)
//   pane() -> the pane whose view keys move, else the first
//   key(event, onCanvas) -> true where it used the key;  escape() -> true where there was something to leave
//   copy() -> text or null, remove(), paste(text) -> whether it could
//   side() and below() -> elements beside and under the canvas;  watch(), several times a second;  pictureChanged()
//   executed(message): the node ran, with this ui
//   dispose()
// A spot is {pane, point: fractions of the pane's picture, place: CSS pixels of the canvas}.

import { undoButtons, viewButtons } from "./editor_buttons.mjs";
import { Gestures } from "./gestures.mjs";
import { History } from "./history.mjs";
import { icon, make, STYLE } from "./editor_style.mjs";
import { Pane } from "./pane.mjs";
import { nearestHandle, splitAreas } from "./view.mjs";

const WATCH_MILLISECONDS = 300;
const TOLERANCE = { mouse: 7, pen: 10, touch: 18 };
const MOST_PIXELS = 4096;

// What was copied in any of the page's editors: {kind: an editor's label, text}.
let clipboard = null;

export class Editor {
  constructor({ app, api, node, store, pictureInputs = [], label, makeHands, makePane = (...of) => new Pane(...of) }) {
    Object.assign(this, { app, api, node, store, label });
    const inputs = pictureInputs.length ? pictureInputs : [null];
    this.panes = inputs.map((input) => makePane(input, (pane) => this.#pictureChanged(pane)));
    this.history = new History();
    this.message = "";
    this.hands = makeHands(this);
    this.#build();
    this.gestures = new Gestures(this);
    this.read();
    // A node that is never shown (a copy that the graph makes to measure) is not watched.
    this.observer = new ResizeObserver(() => {
      this.#staySeen();
      this.watch();
      this.redraw();
    });
    this.observer.observe(this.canvas);
  }

  // The first pane's, for editors with one picture.
  get view() {
    return this.panes[0].view;
  }
  get picture() {
    return this.panes[0].picture;
  }

  // The text -> the state. Called when anything but this editor changed the text.
  read() {
    this.text = this.#stored;
    Object.assign(this, this.hands.read(this.text));
    this.linked = this.#isLinked();
    if (this.linked)
      Object.assign(this, {
        locked: true,
        problem: `${this.store.name} comes from another node: this editor only shows its own.`,
      });
    this.history.reset(this.text);
    this.refresh();
  }

  // A finished change: into the widget and the history. Changes on the way (a drag) only call `refresh`.
  commit() {
    if (this.locked) return;
    this.problem = "";
    this.history.push(this.hands.write(this.state));
    this.#put(this.history.text);
    this.refresh();
  }

  // Back to the last finished change.
  revert() {
    Object.assign(this, this.hands.read(this.history.text));
    this.refresh();
  }

  undo() {
    this.#restore(this.history.undo(), "Undone.");
  }
  redo() {
    this.#restore(this.history.redo(), "Redone.");
  }

  #restore(text, words) {
    if (this.locked || text === this.text) return;
    Object.assign(this, this.hands.read(text));
    this.#put(text);
    this.say(words);
  }

  #put(text) {
    if (text === this.text) return;
    this.text = text;
    this.store.value = text;
    this.store.callback?.(text);
    this.node.graph?.setDirtyCanvas?.(true, true);
    // The graph's own undo looks for changes on mouse-up and on keys, which this editor may keep to itself.
    this.app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
  }

  // Words for the line below, until the next thing is done.
  say(words) {
    this.message = words;
    this.refresh();
  }

  refresh() {
    this.hands.refreshed?.();
    for (const { element, button } of this.buttons) {
      element.disabled = Boolean((this.locked && !button.always) || (button.enabled && !button.enabled()));
      if (button.pressed) element.setAttribute("aria-pressed", String(Boolean(button.pressed())));
    }
    const words = this.problem || this.message || this.hands.describe?.() || "";
    if (this.stateLine.textContent !== words) this.stateLine.textContent = words;
    this.stateLine.classList.toggle("problem", Boolean(this.problem));
    this.redraw();
  }

  redraw() {
    this.request ||= requestAnimationFrame(() => {
      this.request = 0;
      this.#draw();
    });
  }

  // The connected pictures and the text may change without an event that both node modes give.
  watch() {
    clearTimeout(this.timer);
    if (!this.element.isConnected || !this.canvas.clientWidth) return; // the observer wakes it again
    this.timer = setTimeout(() => this.watch(), WATCH_MILLISECONDS);
    if (this.#stored !== this.text || this.#isLinked() !== this.linked) this.read();
    for (const pane of this.panes) pane.watch(this.node, this.api);
    this.hands.watch?.();
    if (this.drawnScale !== this.scale) this.redraw(); // the graph's zoom changed
  }

  get #stored() {
    return String(this.store?.value ?? "");
  }

  #isLinked() {
    return Boolean(this.store) && this.node.inputs?.find((input) => input.name === this.store.name)?.link != null;
  }

  // The node ran: its ui holds the pictures it worked on, [{filename, subfolder, type}] under the names of its inputs.
  executed(message) {
    for (const pane of this.panes) {
      const [entry] = message?.[pane.input] ?? (this.panes.length === 1 ? message?.images : null) ?? [];
      if (entry) pane.shown = { filename: entry.filename, subfolder: entry.subfolder, type: entry.type ?? "temp" };
    }
    this.hands.executed?.(message);
    this.watch();
  }

  #pictureChanged(pane) {
    this.hands.pictureChanged?.(pane);
    this.refresh();
  }

  dispose() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.request);
    this.observer.disconnect();
    if (this.dialog.open) this.dialog.close();
    this.hands.dispose?.();
  }

  #build() {
    // Nodes 2.0 give what calls itself so the room that is left.
    this.element = make("div", { class: "papernodes-editor widget-expands", role: "group", "aria-label": this.label });
    // The graph leaves undo and redo to whatever has the focus if that calls itself a text area.
    if (this.store) this.element.type = "textarea";
    this.canvas = make("canvas", {
      tabindex: 0,
      role: "application",
      "aria-label": `${this.label}: drawing area`,
      "aria-description": this.hands.keyWords,
    });
    this.stateLine = make("div", { class: "state", role: "status", "aria-live": "polite" });
    this.buttons = [];
    const own = [...(this.store ? [undoButtons(this)] : []), viewButtons(this, this.hands.fitWords)];
    const others = this.hands.buttons ?? [];
    const groups = [...others, ...own].map((group) =>
      make("div", { class: "group", role: "group" }, ...group.map((button) => this.button(button))),
    );
    groups.splice(Math.min(others.length, 1), 0, make("span", { class: "spring" }));
    const bar = make("div", { class: "bar", role: "toolbar", "aria-label": `${this.label}: tools` }, ...groups);
    const stage = make("div", { class: "stage" }, this.canvas);
    const side = make("div", { class: "side" }, ...(this.hands.side?.() ?? []));
    const below = make("div", { class: "below" }, ...(this.hands.below?.() ?? []));
    const panel = make(
      "div",
      { class: "panel" },
      bar,
      make("div", { class: "body" }, stage, side),
      below,
      this.stateLine,
    );
    this.root = make("div", { class: "root" }, panel);
    this.dialog = make("dialog", {
      "aria-label": this.label,
      oncancel: (event) => this.hands.escape?.() && event.preventDefault(),
    });
    this.dialog.addEventListener("close", () => {
      this.#restoreGraph();
      this.#settle();
    });
    const away = make("div", { class: "place" }, "Open in the large view");
    this.away = away;
    this.shadow = this.element.attachShadow({ mode: "open" });
    this.shadow.append(make("style", { html: STYLE }), this.root, away, this.dialog);
  }

  button(button) {
    const title = button.keys ? `${button.label} (${button.keys})` : button.label;
    const element = make("button", {
      type: "button",
      "data-id": button.id,
      "aria-label": button.label,
      title,
      html: icon(button.icon),
      onclick: () => {
        this.message = "";
        button.run();
        this.refresh();
      },
    });
    this.buttons.push({ element, button });
    return element;
  }

  zoom(factor) {
    const { x, y, width, height } = this.panes[0].view.area;
    const place = [x + width / 2, y + height / 2];
    for (const { view } of this.panes)
      view.zoomAt(view === this.view ? place : [view.area.x + width / 2, view.area.y + height / 2], factor);
    this.redraw();
  }

  fit() {
    for (const { view } of this.panes) view.reset();
    this.redraw();
  }

  // A dialog of the editor's own covers the page, whatever the graph's zoom is; the same button and Escape leave it.
  enlarge() {
    if (this.dialog.open) return this.dialog.close();
    const { ds } = this.app.canvas ?? {};
    this.graphView = ds && { scale: ds.scale, offset: [...ds.offset] };
    this.dialog.append(this.root);
    this.dialog.showModal();
    this.#settle();
  }

  // Two fingers in the large view move the graph behind it, too, and so may #staySeen.
  #restoreGraph() {
    const { canvas } = this.app;
    if (!this.graphView || !canvas) return;
    canvas.ds.scale = this.graphView.scale;
    [canvas.ds.offset[0], canvas.ds.offset[1]] = this.graphView.offset;
    canvas.setDirty(true, true);
  }

  #settle() {
    if (!this.dialog.open) this.shadow.insertBefore(this.root, this.away);
    this.away.classList.toggle("shown", this.dialog.open);
    this.#staySeen();
    this.canvas.focus({ preventScroll: true });
    this.refresh();
  }

  // Classic nodes hide what belongs to a node outside the window, the large view with it.
  #staySeen() {
    if (this.dialog.open && !this.canvas.clientWidth) this.app.canvas?.centerOnNode?.(this.node);
  }

  // How many pixels of the screen a CSS pixel of the canvas is: the graph's zoom.
  get scale() {
    return this.canvas.getBoundingClientRect().width / this.canvas.clientWidth || 1;
  }

  // The graph's zoom scales the element, so places are taken relative to its rectangle on the screen.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * this.canvas.clientWidth) / Math.max(box.width, 1),
      ((event.clientY - box.top) * this.canvas.clientHeight) / Math.max(box.height, 1),
    ];
  }

  spot(event, pane = null) {
    const place = this.place(event);
    pane ??= this.panes.find(({ view }) => view.contains(place)) ?? this.panes[0];
    return { pane, place, point: pane.view.toPicture(place) };
  }

  tolerance(event) {
    return (TOLERANCE[event.pointerType] ?? TOLERANCE.mouse) / Math.min(Math.max(this.scale, 0.25), 1);
  }

  handleAt(event) {
    return this.locked ? null : nearestHandle(this.hands.handles?.() ?? [], this.place(event), this.tolerance(event));
  }

  copy() {
    const text = this.hands.copy?.();
    if (!text) return false;
    clipboard = { kind: this.label, text };
    this.say("Copied.");
    return true;
  }

  get canPaste() {
    return clipboard?.kind === this.label;
  }

  paste() {
    return this.canPaste && !this.locked && Boolean(this.hands.paste?.(clipboard.text));
  }

  cut() {
    if (this.locked || !this.copy()) return false;
    this.hands.remove?.();
    return true;
  }

  #draw() {
    const { canvas } = this,
      width = canvas.clientWidth,
      height = canvas.clientHeight;
    if (!width || !height) return;
    this.drawnScale = this.scale;
    const wanted = Math.max(this.drawnScale, 1) * (globalThis.devicePixelRatio || 1);
    const ratio = Math.min(wanted, MOST_PIXELS / Math.max(width, height));
    const wide = Math.round(width * ratio),
      high = Math.round(height * ratio);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const areas = splitAreas(this.panes.length, width, height);
    this.panes.forEach(({ view }, index) => (view.area = areas[index]));
    const context = canvas.getContext("2d");
    context.setTransform(wide / width, 0, 0, high / height, 0, 0);
    context.clearRect(0, 0, width, height);
    for (const pane of this.panes) {
      const { area } = pane.view;
      context.save();
      context.beginPath();
      context.rect(area.x, area.y, area.width, area.height);
      context.clip();
      if (!this.hands.drawPicture?.(context, pane)) pane.draw(context);
      context.restore();
    }
    context.save();
    this.hands.draw?.(context);
    context.restore();
  }
}
