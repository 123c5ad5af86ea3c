// Draws an outline on an editor's picture: a lasso round it in one stroke, or a polygon corner by corner, with the
// pointer or with the keyboard alone. done(points) gets it, in fractions of the picture; it has at most `most` corners.

import { COLOURS } from "./editor_style.mjs";
import { drawHandle, stroke, trace } from "./drawing.mjs";
import { area, simplify } from "./outline.mjs";

// CSS pixels, but for the last three.
const SAME_CORNER = 3;
const CLOSE = 12;
const LASSO_TOLERANCE = 1.2;
const LEAST_AREA = 30;
const MOST_LASSO_POINTS = 400;
const STEPS = [0.01, 0.05]; // of the picture, without and with Shift
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class OutlineTool {
  constructor(editor, { done, most = Infinity }) {
    Object.assign(this, { editor, done, most });
    this.clear();
  }

  get corners() {
    return this.points.length;
  }

  // Returns whether there was anything.
  clear() {
    const any = Boolean(this.points?.length || this.next);
    Object.assign(this, { points: [], next: null, kind: "polygon" });
    return any;
  }

  // What is dragged, or null.
  press(spot, kind) {
    this.kind = kind;
    if (kind === "polygon") {
      if (!this.#addCorner(spot.point)) return null;
      const at = this.points.length - 1;
      return { drag: (now) => (this.points[at] = now.point), cancel: () => (this.points.length = at) };
    }
    this.points = [spot.point];
    return {
      drag: (now) => this.points.push(now.point),
      end: () => {
        const { view } = this.editor,
          places = this.points.map((point) => view.toCanvas(point));
        const kept = simplify(places, LASSO_TOLERANCE, MOST_LASSO_POINTS);
        this.points = kept.map((place) => view.toPicture(place));
        this.close();
      },
      cancel: () => this.clear(),
    };
  }

  hover(spot) {
    if (this.kind !== "polygon" || !this.points.length) return;
    this.next = spot?.point ?? null;
    this.editor.redraw();
  }

  // Arrow keys move a cross, Space sets a corner there, Enter closes. Returns whether the key was used.
  key(event) {
    const next = this.next ?? [0.5, 0.5],
      step = STEPS[event.shiftKey ? 1 : 0];
    if (event.key in MOVES) this.next = next.map((value, axis) => value + MOVES[event.key][axis] * step);
    else if (event.key === " ") this.#addCorner(next);
    else if (event.key === "Enter") this.close();
    else if (event.key === "Backspace") this.points.pop();
    else return false;
    return true;
  }

  close() {
    const { points, kind, editor } = this,
      places = points.map((point) => editor.view.toCanvas(point));
    const few = points.length < 3,
      small = few || area(places) < LEAST_AREA;
    if (!small || kind === "lasso") this.clear();
    if (few) editor.say("An outline needs three points or more.");
    else if (small) editor.say("That outline is too small to cut out a part.");
    else this.done(points);
  }

  // Returns whether there is one more.
  #addCorner(point) {
    const { points } = this,
      { view } = this.editor,
      place = view.toCanvas(point);
    const far = (other) => Math.hypot(...view.toCanvas(other).map((value, axis) => value - place[axis]));
    if (points.length > 2 && far(points[0]) <= CLOSE) return (this.close(), false);
    if (points.length >= this.most || (points.length && far(points.at(-1)) < SAME_CORNER)) return false;
    points.push(point);
    return true;
  }

  draw(context) {
    const { view } = this.editor,
      places = this.points.map((point) => view.toCanvas(point));
    const end = this.kind === "polygon" && this.next ? [view.toCanvas(this.next)] : [];
    if (!places.length && !end.length) return;
    trace(context, [...places, ...end], false);
    stroke(context, COLOURS.accent, 2);
    if (this.kind !== "polygon") return;
    places.forEach((at, index) => drawHandle(context, { at, shape: index ? "point" : "round" }));
    if (end.length) drawHandle(context, { at: end[0], shape: "pivot" });
  }
}
