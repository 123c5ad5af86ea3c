// The hands of the Light Source editor: lights that are put up, dragged and typed become the JSON that
// kernels/light_source.py reads, and what is seen is the light that it makes.

import { drawCovering } from "./drawing.mjs";
import * as edits from "./light_edits.mjs";
import { drawLightHandles, lightHandles } from "./light_handles.mjs";
import { KEY_WORDS, lightKey } from "./light_keys.mjs";
import { lightAt, MOST_LIGHTS, parseLights, STYLES } from "./light_maps.mjs";
import { lightTimeline, LightPanels } from "./light_panels.mjs";
import { LightPreview } from "./light_preview.mjs";
import { Player } from "./player.mjs";
import { nearestHandle } from "./view.mjs";

const SIDES = ["the right", "below right", "below", "below left", "the left", "above left", "above", "above right"];
const FALLBACK_SIZE = 512;
const DOUBLE_TOLERANCE = 10; // CSS pixels

export class LightSourceHands {
  constructor(editor) {
    Object.assign(this, { editor, frame: 0, selected: null, backdrop: true, keyWords: KEY_WORDS });
    this.preview = new LightPreview();
    this.player = new Player({
      frames: () => this.frames,
      show: (frame) => {
        this.frame = frame;
        this.timeline.refresh();
        editor.redraw();
      },
      changed: () => editor.refresh(),
    });
    const free = () => this.lights.length < MOST_LIGHTS;
    this.buttons = [
      [
        {
          id: "add-side",
          icon: "sun",
          label: "Add a light from a side",
          keys: "L",
          run: () => this.addSide(),
          enabled: free,
        },
        { id: "add-point", icon: "lamp", label: "Add a point light", keys: "P", run: () => this.addPoint(), enabled: free },
      ],
      [
        {
          id: "backdrop",
          icon: "backdrop",
          label: "Show the picture behind",
          keys: "B",
          always: true,
          enabled: () => editor.picture,
          pressed: () => this.backdrop && Boolean(editor.picture),
          run: () => (this.backdrop = !this.backdrop),
        },
      ],
    ];
  }

  get lights() {
    return this.editor.state.lights;
  }
  get current() {
    return this.lights[this.selected] ?? null;
  }
  get frames() {
    return this.#number("frames", 1);
  }
  get style() {
    const { value } = this.#widget("style") ?? {};
    return Object.hasOwn(STYLES, value) ? value : "fc";
  }
  get size() {
    return { width: this.#number("width", FALLBACK_SIZE), height: this.#number("height", FALLBACK_SIZE) };
  }
  // Whether there is time to travel in: a clip, or a key that asks for one.
  get moving() {
    return this.frames > 1 || this.lights.some((light) => light.keys.length);
  }

  #widget(name) {
    return this.editor.node.widgets?.find((widget) => widget.name === name);
  }

  #number(name, fallback) {
    return Math.max(Math.round(Number(this.#widget(name)?.value)) || fallback, 1);
  }

  // What a light is like at the current frame.
  at(index) {
    return lightAt(this.lights[index], this.frame);
  }

  nameOf(index) {
    const { kind } = this.lights[index];
    return `Light ${index + 1}, ${kind === "side" ? `from ${sideOf(this.at(index).angle)}` : "point"}`;
  }

  read(text) {
    return parseLights(text);
  }

  write(state) {
    return JSON.stringify(state);
  }

  refreshed() {
    if (!this.current) this.selected = this.lights.length === 1 ? 0 : null;
    this.frame = Math.min(this.frame, this.frames - 1);
    // The map's size decides, whatever lies behind it.
    this.editor.view.picture = this.size;
    this.panels?.refresh();
    if (!this.timeline) return;
    this.timeline.element.style.display = this.moving ? "" : "none";
    this.timeline.refresh();
  }

  watch() {
    const { width, height } = this.size,
      seen = `${this.frames} ${width} ${height} ${this.style}`;
    if (seen === this.seen) return;
    this.seen = seen;
    this.editor.refresh();
  }

  dispose() {
    this.timeline.dispose();
  }

  side() {
    this.panels = new LightPanels(this);
    return this.panels.elements;
  }

  below() {
    this.timeline = lightTimeline(this);
    return [this.timeline.element];
  }

  describe() {
    const beyond = this.lights.findIndex((light) => (light.keys.at(-1)?.frame ?? 0) >= this.frames);
    if (beyond >= 0)
      return (
        `${this.nameOf(beyond)}: a key lies beyond the last frame ${this.frames - 1}. ` +
        "Raise frames, or move or delete the key."
      );
    if (!this.lights.length) return "No lights: all is dark. Add one with the sun or the lamp.";
    if (!this.current) return "Press on a sun or a lamp to select it.";
    const keys = this.current.keys.length;
    if (this.frames === 1) return `${this.nameOf(this.selected)}: drag it.`;
    return keys
      ? `${this.nameOf(this.selected)}: frame ${this.frame}, ${keys} key${keys > 1 ? "s" : ""}.`
      : `${this.nameOf(this.selected)} rests. Set a key, go to another frame and drag it there.`;
  }

  // What is changed, and how: change() on the way, editor.commit() at the end.

  replace(index, light) {
    this.editor.state = edits.replaceLight(this.editor.state, index, light);
  }

  change(index, changes, seen = false) {
    this.replace(index, edits.change(this.lights[index], this.frame, changes));
    if (seen) this.editor.refresh();
  }

  // A finished change of the selected light.
  set(changes) {
    if (!this.current || this.editor.locked) return;
    this.change(this.selected, changes);
    this.editor.commit();
  }

  // An angle in degrees as it is to be written: near to the one before where there are keys, so that the light does
  // not turn round between two of them, else from 0 to 360.
  turned(index, angle) {
    const near = this.lights[index].keys.length ? this.at(index).angle : 180;
    const turned = angle + 360 * Math.round((near - angle) / 360);
    return this.lights[index].keys.length || turned < 360 ? turned : turned - 360;
  }

  select(index) {
    this.selected = index;
    this.editor.refresh();
  }

  addSide() {
    return this.#insert(edits.newSide(this.lights));
  }

  addPoint(place) {
    return this.#insert(edits.newPoint(place));
  }

  duplicate() {
    return Boolean(this.current) && this.#insert(edits.copyOf(this.current));
  }

  remove() {
    if (!this.current) return;
    this.editor.state = edits.removeLight(this.editor.state, this.selected);
    const { length } = this.lights;
    this.selected = length ? Math.min(this.selected, length - 1) : null;
    this.editor.commit();
  }

  copy() {
    return this.current && JSON.stringify(this.current);
  }

  paste(text) {
    const { state } = parseLights(JSON.stringify({ version: 1, lights: [JSON.parse(text)] }));
    return state.lights.length > 0 && this.#insert(edits.copyOf(state.lights[0]));
  }

  #insert(light) {
    if (this.editor.locked) return false;
    const state = edits.addLight(this.editor.state, light);
    if (!state) {
      this.editor.say(`There are ${MOST_LIGHTS} lights already; more cannot shine.`);
      return false;
    }
    this.player.pause();
    this.editor.state = state;
    this.selected = state.lights.length - 1;
    this.editor.commit();
    return true;
  }

  // Pointers

  handles() {
    return this.player.playing ? [] : lightHandles(this);
  }

  press() {
    this.player.pause();
    this.selected = null;
    return null;
  }

  double(spot) {
    if (!nearestHandle(this.handles(), spot.place, DOUBLE_TOLERANCE)) this.addPoint(spot.point);
  }

  // Keys

  escape() {
    if (this.selected === null || this.lights.length === 1) return false;
    this.select(null);
    return true;
  }

  key(event, onCanvas) {
    return lightKey(this, event, onCanvas);
  }

  // Drawing

  drawPicture(context, pane) {
    const { x, y, width, height } = pane.view.frame,
      size = this.size;
    const light = this.preview.frame(this.lights, this.frame, size.width, size.height, this.style);
    context.imageSmoothingQuality = "high";
    context.drawImage(light, x, y, width, height);
    if (!pane.picture || !this.backdrop) return true;
    // The picture as this light would show it, its middle cut to the map's sides.
    context.globalCompositeOperation = "multiply";
    drawCovering(context, pane.picture, pane.view.frame);
    context.globalCompositeOperation = "source-over";
    return true;
  }

  draw(context) {
    if (!this.player.playing) drawLightHandles(context, this);
  }
}

// Where an angle comes from, in words.
function sideOf(angle) {
  return SIDES[((Math.round(angle / 45) % 8) + 8) % 8];
}
