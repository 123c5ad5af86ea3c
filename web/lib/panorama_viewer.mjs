// The hands of the panorama viewer: it looks round and plays, and keeps nothing in the workflow.

import { Player } from "./player.mjs";
import { Timeline } from "./timeline.mjs";

const STEP = 5; // degrees
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const FALLBACK_RATE = 16;
const KEY_WORDS =
  "Drag or arrow keys (with Shift: finer) look round; plus, minus and the wheel zoom; 0 looks straight ahead; F is the " +
  "large view. Space plays, comma and full stop go one frame back and ahead, Home and End to the first and last.";

export class PanoramaHands {
  constructor(editor) {
    Object.assign(this, { editor, keyWords: KEY_WORDS, fitWords: "Look straight ahead" });
    this.player = new Player({
      frames: () => this.frames,
      show: (frame) => this.#go(frame),
      changed: () => editor.refresh(),
    });
  }

  get shown() {
    return this.editor.panes[0];
  }
  get frames() {
    return Math.max(this.shown.count, 1);
  }
  get frame() {
    return this.shown.frame;
  }
  // What the clip was saved with, else what the widget says.
  get rate() {
    const widget = this.editor.node.widgets?.find((each) => each.name === "frame_rate");
    return Number(this.shown.shown?.[0]?.frame_rate ?? widget?.value) || FALLBACK_RATE;
  }

  read() {
    return { state: null, problem: "", locked: false };
  }

  watch() {
    const { node, app } = this.editor;
    // Runs from before the page, or the tab with this graph, was opened.
    this.shown.take(app.nodeOutputs?.[node.id]?.panorama, false);
  }

  executed(message) {
    this.shown.take(message?.panorama, true);
  }

  pictureChanged() {
    this.player.rate = this.rate;
    if (this.frames === 1) this.player.pause();
  }

  refreshed() {
    if (!this.timeline) return;
    this.timeline.element.style.display = this.frames > 1 ? "" : "none";
    this.timeline.refresh();
  }

  below() {
    this.timeline = new Timeline({
      keyless: true,
      player: this.player,
      frames: () => this.frames,
      frame: () => this.frame,
      seek: (frame) => this.#go(frame),
    });
    return [this.timeline.element];
  }

  dispose() {
    this.timeline.dispose();
    this.shown.dispose();
  }

  #go(frame) {
    this.shown.seek(frame);
    this.timeline.refresh();
    this.editor.redraw();
  }

  describe() {
    const { picture, look, round, sphere } = this.shown;
    if (!picture) return "";
    const { width, height } = picture;
    if (width !== 2 * height) return `This picture is ${width}x${height}; a panorama is twice as wide as high.`;
    if (!round)
      return sphere.lost
        ? "The graphics device was lost: the panorama lies flat until it is back."
        : "This browser has no WebGL 2: the panorama lies flat.";
    const seen = `Yaw ${whole(look.yaw)}, pitch ${whole(look.pitch)}, field of view ${whole(look.fov)} degrees.`;
    const full = picture.fullWidth ?? this.shown.shown?.[this.frame]?.width ?? width;
    if (full <= width) return seen;
    const why = picture.fullWidth ? "no larger one fits this device" : "large clips are sent here smaller";
    return `${seen} Seen at ${width}x${height} in place of ${full}x${full / 2}: ${why}.`;
  }

  // Pointers

  press() {
    return { pan: true };
  }

  cursor() {
    return this.shown.picture ? "grab" : "default";
  }

  // Keys

  key(event, onCanvas) {
    if (onCanvas && event.key in TURNS && this.shown.round) {
      const [yaw, pitch] = TURNS[event.key],
        step = event.shiftKey ? STEP / 5 : STEP;
      this.shown.look.turn(yaw * step, pitch * step);
      return true;
    }
    return this.frames > 1 && this.timeline.key(event);
  }

  // Drawing

  drawPicture(context, pane) {
    if (!pane.round) return false;
    const { canvas } = this.editor,
      { width, height } = canvas;
    const drawn = pane.drawn(width, height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(drawn, 0, drawn.height - height, width, height, 0, 0, width, height);
    return true;
  }
}

function whole(angle) {
  return Math.round(angle) || 0; // never -0
}
