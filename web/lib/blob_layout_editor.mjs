// The hands of the Blob Layout editor: ellipses that are drawn, dragged and described become the JSON that
// kernels/blob_layout.py reads.

import { drawBlobs, drawGround } from "./blob_drawing.mjs";
import * as edits from "./blob_edits.mjs";
import { blobHandles, drawing, moving } from "./blob_handles.mjs";
import { blobKey, KEY_WORDS } from "./blob_keys.mjs";
import { captionAt, ellipseAt, farness, isThere, MOST_BLOBS, parseBlobs } from "./blob_layout.mjs";
import { BlobPanels, blobTimeline } from "./blob_panels.mjs";
import { connectedNode } from "./picture_source.mjs";
import { Player } from "./player.mjs";

const FALLBACK_SIZE = 512;

export class BlobLayoutHands {
  constructor(editor) {
    Object.assign(this, {
      editor,
      tool: "select",
      frame: 0,
      selected: null,
      onion: false,
      backdrop: true,
      planned: [], // what lay beneath when the node last ran
      keyWords: KEY_WORDS,
    });
    this.player = new Player({
      frames: () => this.frames,
      show: (frame) => {
        this.frame = frame;
        this.timeline.refresh();
        editor.redraw();
      },
      changed: () => editor.refresh(),
    });
    const tool = (id, icon, label, keys) => ({
      id,
      icon,
      label,
      keys,
      run: () => this.use(id),
      pressed: () => this.tool === id,
    });
    this.buttons = [
      [
        tool("select", "select", "Select, move, size and turn", "V"),
        { ...tool("ellipse", "ellipse", "Draw a blob, also over others", "D"), enabled: () => this.isRoom },
      ],
      [
        {
          id: "onion",
          icon: "onion",
          label: "Onion skin: the key frames nearby",
          keys: "O",
          always: true,
          pressed: () => this.onion,
          run: () => (this.onion = !this.onion),
        },
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

  get blobs() {
    return this.editor.state.blobs;
  }
  get current() {
    return this.blobs.find((blob) => blob.id === this.selected) ?? null;
  }
  get isRoom() {
    return this.blobs.length < MOST_BLOBS;
  }
  get frames() {
    return this.#number("frames", 1);
  }
  get size() {
    return { width: this.#number("width", FALLBACK_SIZE), height: this.#number("height", FALLBACK_SIZE) };
  }
  // Whether there is time to travel in: a clip, or a key that asks for one.
  get moving() {
    return this.frames > 1 || this.blobs.some((blob) => blob.keys.length || blob.captions.length);
  }
  get hasCaptionHere() {
    return Boolean(this.current?.captions.some((key) => key.frame === this.frame));
  }
  get beneath() {
    return connectedNode(this.editor.node, "blobs") ? this.planned : [];
  }

  #number(name, fallback) {
    const widget = this.editor.node.widgets?.find((each) => each.name === name);
    return Math.max(Math.round(Number(widget?.value)) || fallback, 1);
  }

  // A blob's ellipse at the current frame.
  at(blob) {
    return ellipseAt(blob, this.frame);
  }

  nameOf(blob) {
    const caption = captionAt(blob, this.frame),
      away = isThere(blob, this.frame) ? "" : " (not in the picture here)";
    return `Blob ${this.blobs.indexOf(blob) + 1}, ${caption || "no caption"}${away}`;
  }

  read(text) {
    return parseBlobs(text);
  }

  write(state) {
    return JSON.stringify(state);
  }

  refreshed() {
    if (!this.current) this.selected = null;
    this.frame = Math.min(this.frame, this.frames - 1);
    // The layout's size decides, whatever lies behind it.
    this.editor.view.picture = this.size;
    this.panels?.refresh();
    if (!this.timeline) return;
    this.timeline.element.style.display = this.moving ? "" : "none";
    this.timeline.refresh();
  }

  watch() {
    const { width, height } = this.size,
      seen = `${this.frames} ${width} ${height} ${this.beneath.length}`;
    if (seen === this.seen) return;
    this.seen = seen;
    this.editor.refresh();
  }

  executed(message) {
    const [text] = message?.beneath ?? [];
    this.planned = text ? parseBlobs(text).state.blobs : [];
    this.editor.redraw();
  }

  dispose() {
    this.timeline.dispose();
  }

  side() {
    this.panels = new BlobPanels(this);
    return this.panels.elements;
  }

  below() {
    this.timeline = blobTimeline(this);
    return [this.timeline.element];
  }

  describe() {
    const { current, frames } = this;
    const last = (keys) => keys.at(-1)?.frame ?? 0;
    const short = (blob) => `Blob ${this.blobs.indexOf(blob) + 1}`;
    const beyond = this.blobs.find((blob) => Math.max(last(blob.keys), last(blob.captions)) >= frames);
    if (beyond)
      return (
        `${short(beyond)}: a key or a caption lies beyond the last frame ${frames - 1}. ` +
        "Raise frames, or delete it."
      );
    if (this.tool === "ellipse") return "Drag to draw a blob; with Shift a circle.";
    if (!this.blobs.length) return "Drag on the picture to draw a blob, then write what it is.";
    if (!current) return "Click a blob to select it, or drag on free ground to draw one (D: also over others).";
    if (!captionAt(current, this.frame)) return `${short(current)}: press Enter and write what it is.`;
    if (frames === 1) return `${short(current)}: drag it, its squares, or the round handle to turn it.`;
    const keys = current.keys.length;
    return keys
      ? `${short(current)}: frame ${this.frame}, ${keys} key${keys > 1 ? "s" : ""}.`
      : `${short(current)} rests. Set a key, go to another frame and drag it there.`;
  }

  // What is changed, and how: change() on the way, editor.commit() at the end; put() and set() do both.

  replace(blob) {
    this.editor.state = edits.replaceBlob(this.editor.state, blob);
  }

  change(changes) {
    if (this.current) this.replace(edits.change(this.current, this.frame, changes));
  }

  put(blob) {
    this.replace(blob);
    this.editor.commit();
  }

  set(changes) {
    if (!this.current || this.editor.locked) return;
    this.change(changes);
    this.editor.commit();
  }

  // The selected blob's caption while it is written.
  writing(text) {
    if (!this.current || this.editor.locked) return;
    this.replace(edits.setCaption(this.current, this.frame, text));
    this.editor.refresh();
  }

  // Puts the focus where the selected blob's caption is written.
  writeCaption() {
    if (!this.current || this.editor.locked) return;
    this.panels.caption.area.focus({ preventScroll: true });
    this.panels.caption.area.select();
  }

  toggleThere() {
    if (this.current) this.set({ there: !isThere(this.current, this.frame) });
  }

  toggleCaption() {
    if (!this.current || this.editor.locked || !this.moving) return;
    const toggled = this.hasCaptionHere ? edits.removeCaption : edits.addCaption;
    this.put(toggled(this.current, this.frame));
  }

  use(tool) {
    if (this.editor.locked) return;
    this.player.pause();
    this.tool = tool === "ellipse" && this.isRoom ? tool : "select";
  }

  seek(frame) {
    this.frame = frame;
    this.editor.refresh();
  }

  select(id) {
    this.selected = id;
    this.editor.refresh();
  }

  reorder(steps) {
    if (!this.current || this.editor.locked) return;
    this.editor.state = edits.reorder(this.editor.state, this.selected, steps);
    this.editor.commit();
  }

  remove() {
    if (!this.current || this.editor.locked) return;
    const at = this.blobs.indexOf(this.current);
    this.editor.state = edits.removeBlob(this.editor.state, this.selected);
    this.selected = this.blobs[Math.min(at, this.blobs.length - 1)]?.id ?? null;
    this.editor.commit();
  }

  addInTheMiddle() {
    if (this.#insert(edits.newBlob({}))) this.writeCaption();
  }

  duplicate() {
    return Boolean(this.current) && this.#insert(edits.copyOf(this.current));
  }

  copy() {
    return this.current && JSON.stringify(this.current);
  }

  paste(text) {
    const { state } = parseBlobs(JSON.stringify({ version: 1, blobs: [JSON.parse(text)] }));
    return state.blobs.length > 0 && this.#insert(edits.copyOf(state.blobs[0]));
  }

  #insert(blob) {
    if (this.editor.locked) return false;
    const state = edits.addBlob(this.editor.state, blob);
    if (!state) {
      this.editor.say(`There are ${MOST_BLOBS} blobs already; no more can stand in a layout.`);
      return false;
    }
    this.player.pause();
    this.editor.state = state;
    this.selected = state.blobs.at(-1).id;
    this.editor.commit();
    return true;
  }

  // Pointers

  handles() {
    return this.current && this.tool === "select" && !this.player.playing ? blobHandles(this) : [];
  }

  // The blobs at a point, the one on top first.
  hits(point) {
    const { width, height } = this.size;
    return this.blobs
      .filter((blob) => isThere(blob, this.frame) || blob === this.current)
      .filter((blob) => farness(this.at(blob), point, width / height) <= 1)
      .reverse();
  }

  press(spot) {
    this.player.pause();
    const hits = this.tool === "select" ? this.hits(spot.point) : [];
    if (!hits.length) {
      if (this.tool === "select") this.selected = null;
      return drawing(this);
    }
    const again = hits.indexOf(this.current);
    if (again < 0) this.selected = hits[0].id;
    // Pressed once more, the one beneath is taken.
    return moving(this, () => again >= 0 && this.select(hits[(again + 1) % hits.length].id));
  }

  cursor(spot) {
    if (this.editor.locked) return "default";
    return this.tool === "select" && this.hits(spot.point).length ? "move" : "crosshair";
  }

  double(spot) {
    if (this.hits(spot.point).length) this.writeCaption();
  }

  // Keys

  escape() {
    if (this.tool !== "select") this.tool = "select";
    else if (this.selected !== null) this.selected = null;
    else return false;
    this.editor.refresh();
    return true;
  }

  key(event, onCanvas) {
    return blobKey(this, event, onCanvas);
  }

  // Drawing

  drawPicture(context, pane) {
    drawGround(context, this, pane);
    return true;
  }

  draw(context) {
    drawBlobs(context, this);
  }
}
