// The hands of the Cut and Drag editor: what is drawn, dragged and typed becomes the motion that
// kernels/drag_motion.py reads.

import { MOST_OBJECTS, MOST_POINTS, parseMotion, poseAt } from "./drag_motion.mjs";
import * as edits from "./motion_edits.mjs";
import * as draw from "./motion_handles.mjs";
import { KEY_WORDS, motionKey } from "./motion_keys.mjs";
import { motionTimeline, sidePanels } from "./motion_panels.mjs";
import { MotionPreview } from "./motion_preview.mjs";
import { isInside, nearestEdge } from "./outline.mjs";
import { OutlineTool } from "./outline_tool.mjs";
import { Player } from "./player.mjs";

const PALETTE = ["#4f9dff", "#ff8a5c", "#5fd38d", "#e77bff", "#ffd24a", "#45d6e0", "#ff6f91", "#b7c45a"];
const START_PIXELS = 3; // a drag begins after this many CSS pixels
const FALLBACK_FRAMES = 49;

export class CutAndDragHands {
  constructor(editor) {
    Object.assign(this, {
      editor,
      tool: "select",
      frame: 0,
      selected: null,
      point: null,
      onion: false,
      keyWords: KEY_WORDS,
    });
    this.outline = new OutlineTool(editor, { most: MOST_POINTS, done: (polygon) => this.cutOut(polygon) });
    this.preview = new MotionPreview();
    this.player = new Player({
      frames: () => this.frames,
      show: (frame) => {
        this.frame = frame;
        this.timeline.refresh();
        editor.redraw();
      },
      changed: () => editor.refresh(),
    });
    const tool = (id, label, keys) => ({
      id,
      icon: id,
      label,
      keys,
      run: () => this.use(id),
      pressed: () => this.tool === id,
    });
    this.buttons = [
      [
        tool("select", "Select, move, turn and scale", "V"),
        { ...tool("points", "Edit points", "A"), enabled: () => this.current },
        tool("polygon", "Polygon: click its corners", "P"),
        tool("lasso", "Lasso: draw round the part", "L"),
      ],
      [
        {
          id: "onion",
          icon: "onion",
          label: "Onion skin",
          keys: "O",
          always: true,
          pressed: () => this.onion,
          run: () => (this.onion = !this.onion),
        },
      ],
    ];
  }

  get objects() {
    return this.editor.state.objects;
  }
  get current() {
    return this.objects.find((object) => object.id === this.selected) ?? null;
  }
  get frames() {
    return Math.max(Math.round(Number(this.#widget("frames")?.value)) || FALLBACK_FRAMES, 1);
  }
  get hole() {
    return this.#widget("hole")?.value === "keep" ? "keep" : "fill";
  }

  #widget(name) {
    return this.editor.node.widgets?.find((widget) => widget.name === name);
  }

  read(text) {
    const { motion, problem, locked } = parseMotion(text);
    this.point = null;
    return { state: motion, problem, locked };
  }

  write(motion) {
    return JSON.stringify(motion);
  }

  refreshed() {
    if (!this.current) this.selected = null;
    if (!this.current && this.tool === "points") this.tool = "select";
    if (this.point >= (this.current?.polygon.length ?? 0)) this.point = null;
    this.frame = Math.min(this.frame, this.frames - 1);
    this.list?.refresh();
    this.fields?.refresh(Boolean(this.current) && !this.editor.locked);
    this.timeline?.refresh();
  }

  watch() {
    const seen = `${this.frames} ${this.hole}`;
    if (seen !== this.seen) {
      this.seen = seen;
      this.editor.refresh();
    }
  }

  dispose() {
    this.timeline.dispose();
  }

  side() {
    [this.list, this.fields] = sidePanels(this);
    return [this.list.element, this.list.list, this.fields.element];
  }

  below() {
    this.timeline = motionTimeline(this);
    return [this.timeline.element];
  }

  describe() {
    const { current } = this,
      beyond = this.objects.filter((object) => (object.keys.at(-1)?.frame ?? 0) >= this.frames);
    if (beyond.length)
      return (
        `${beyond[0].name || beyond[0].id} has a key beyond the last frame ${this.frames - 1}: ` +
        "raise frames, or move the key."
      );
    if (this.tool === "lasso") return "Draw round the part to cut out.";
    if (this.tool === "polygon")
      return this.outline.corners > 2
        ? "Click the first point, or press Enter, to close the outline."
        : "Click the corners of the part.";
    if (this.tool === "points") return "Drag points; press on the outline to add one; Delete removes the chosen one.";
    if (!this.objects.length) return "Cut out a part of the picture first: lasso or polygon.";
    if (!current) return "Click a part to select it.";
    const keys = current.keys.length;
    return keys
      ? `${current.name}: frame ${this.frame}, ${keys} key${keys > 1 ? "s" : ""}.`
      : `${current.name} rests. Drag it: keys are set by themselves.`;
  }

  colourOf(object) {
    const sum = [...object.id].reduce((total, letter) => (total * 31 + letter.charCodeAt(0)) % 9973, 7);
    return PALETTE[sum % PALETTE.length];
  }

  // What is changed, and how: change() on the way, editor.commit() at the end.

  change(object) {
    this.editor.state = edits.replaceObject(this.editor.state, object);
  }

  use(tool) {
    if (this.editor.locked) return;
    this.player.pause();
    this.outline.clear();
    this.tool = tool === "points" && !this.current ? "select" : tool;
    if (this.tool !== "select") this.editor.message = "";
  }

  select(id) {
    this.selected = id;
    this.point = null;
    this.editor.refresh();
  }

  rename(id, name) {
    this.change({ ...this.objects.find((object) => object.id === id), name });
    this.editor.commit();
  }

  reorder(steps) {
    if (this.current) this.editor.state = edits.reorder(this.editor.state, this.selected, steps);
    this.editor.commit();
  }

  remove() {
    if (this.tool === "points" && this.point !== null) this.change(edits.removePoint(this.current, this.point));
    else if (this.current) this.editor.state = edits.removeObject(this.editor.state, this.selected);
    this.point = null;
    this.editor.commit();
  }

  duplicate() {
    return Boolean(this.current) && this.#insert(edits.addCopy(this.editor.state, this.current));
  }

  copy() {
    return this.current && JSON.stringify(this.current);
  }

  paste(text) {
    const { motion } = parseMotion(JSON.stringify({ version: 1, objects: [JSON.parse(text)] }));
    return motion.objects.length > 0 && this.#insert(edits.addCopy(this.editor.state, motion.objects[0]));
  }

  cutOut(polygon) {
    if (!this.#insert(edits.addObject(this.editor.state, polygon))) return;
    this.frame = 0;
    this.tool = "select";
    this.editor.say(`${this.current.name} is cut out. Drag it to where it shall be at the end.`);
  }

  #insert(motion) {
    if (!motion) {
      this.editor.say(`There are ${MOST_OBJECTS} parts already; more cannot be moved.`);
      return false;
    }
    this.editor.state = motion;
    this.selected = motion.objects.at(-1).id;
    this.editor.commit();
    return true;
  }

  // The frame whose pose is changed. A part without keys goes from rest at frame 0 to its new place at the end.
  editFrame(object) {
    if (!object.keys.length && this.frame === 0) this.frame = this.frames - 1;
    return this.frame;
  }

  setPose(change) {
    const { current } = this;
    if (!current) return;
    const frame = this.editFrame(current);
    this.change(edits.setPose(current, frame, { ...poseAt(current, frame), ...change }));
    this.editor.commit();
  }

  // A drag that changes the pose: pose(pose before, spot, pivot's place, place where it began, event) -> the new pose.
  poseDrag(object, pose) {
    const before = this.frame;
    let first = null,
      centre = null,
      moved = false;
    return {
      drag: (spot, event, start) => {
        const from = start.place;
        if (!moved && Math.hypot(spot.place[0] - from[0], spot.place[1] - from[1]) < START_PIXELS) return;
        if (!moved) {
          moved = true;
          this.editFrame(object);
          first = poseAt(object, this.frame);
          centre = draw.boxOn(this, object, this.frame).pivot;
        }
        this.change(edits.setPose(object, this.frame, pose(first, spot, centre, from, event)));
      },
      end: () => moved && this.editor.commit(),
      cancel: () => (this.frame = before),
    };
  }

  // Pointers

  handles() {
    const { current } = this;
    if (this.player.playing) return [];
    if (this.tool === "select" && current) return draw.selectHandles(this, current);
    if (this.tool === "points" && current) return draw.pointHandles(this, current);
    return [];
  }

  objectAt(spot) {
    const frame = this.tool === "select" ? this.frame : null;
    return this.objects.findLast((object) => isInside(draw.outlineOn(this, object, frame), spot.place)) ?? null;
  }

  press(spot, event) {
    this.player.pause();
    if (this.tool === "polygon" || this.tool === "lasso") return this.outline.press(spot, this.tool);
    if (this.tool === "points") {
      const edge = nearestEdge(draw.outlineOn(this, this.current, null), spot.place);
      if (edge.far <= this.editor.tolerance(event) && this.current.polygon.length < MOST_POINTS) {
        this.change(edits.addPoint(this.current, edge.index, spot.point));
        this.point = edge.index + 1;
        return { ...draw.pointHandles(this, this.current)[this.point], end: () => this.editor.commit() };
      }
    }
    const object = this.objectAt(spot);
    this.selected = object?.id ?? (this.tool === "points" ? this.selected : null);
    this.point = null;
    if (!object || this.tool !== "select") return null;
    const { frame } = this.editor.view;
    return this.poseDrag(object, (start, now, _, from, moving) => {
      let across = now.place[0] - from[0],
        down = now.place[1] - from[1];
      if (moving.shiftKey) Math.abs(across) > Math.abs(down) ? (down = 0) : (across = 0);
      return { ...start, x: start.x + across / frame.width, y: start.y + down / frame.height };
    });
  }

  hover(spot) {
    this.outline.hover(spot);
  }

  cursor(spot) {
    if (this.tool === "polygon" || this.tool === "lasso") return "crosshair";
    return this.objectAt(spot) ? (this.tool === "select" ? "move" : "pointer") : "default";
  }

  double(spot) {
    if (this.tool === "polygon") this.outline.close();
    else if (this.tool === "select" && this.objectAt(spot)) this.use("points");
    this.editor.refresh();
  }

  // Keys

  escape() {
    if (this.outline.clear()) this.point = null;
    else if (this.tool !== "select") this.tool = "select";
    else if (this.selected) this.selected = null;
    else return false;
    this.editor.refresh();
    return true;
  }

  key(event, onCanvas) {
    return motionKey(this, event, onCanvas);
  }

  // Drawing

  drawPicture(context, pane) {
    const moved = this.tool === "select" || this.player.playing;
    if (!pane.picture || !this.objects.length || !moved) return false;
    const frame = pane.view.frame;
    context.imageSmoothingQuality = "high";
    context.drawImage(
      this.preview.frame(pane.picture, this.objects, this.frame, this.hole),
      frame.x,
      frame.y,
      frame.width,
      frame.height,
    );
    return true;
  }

  draw(context) {
    if (!this.player.playing || !this.editor.picture) draw.drawMotion(context, this);
  }
}
