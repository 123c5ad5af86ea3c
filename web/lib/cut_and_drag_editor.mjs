// The hands of the Cut and Drag editor: what is drawn, dragged and typed becomes the motion that
// kernels/drag_motion.py reads.

import { MOST_OBJECTS, MOST_POINTS, parseMotion, poseAt, travel, WAYS } from "./drag_motion.mjs";
import { COLOURS } from "./editor_style.mjs";
import * as edits from "./motion_edits.mjs";
import * as draw from "./motion_handles.mjs";
import { MotionPreview } from "./motion_preview.mjs";
import { NumberFields, ObjectList } from "./object_list.mjs";
import { isInside, nearestEdge } from "./outline.mjs";
import { OutlineTool } from "./outline_tool.mjs";
import { Player } from "./player.mjs";
import { Timeline } from "./timeline.mjs";

const PALETTE = ["#4f9dff", "#ff8a5c", "#5fd38d", "#e77bff", "#ffd24a", "#45d6e0", "#ff6f91", "#b7c45a"];
const START_PIXELS = 3; // a drag begins after this many CSS pixels
const FALLBACK_FRAMES = 49;
const STEPS = { turn: [5, 1], grow: [1.05, 1.01], move: [1, 10] };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEY_WORDS = "V selects, A edits points, P draws a polygon, L a lasso. Arrow keys move the selected part by a pixel, " +
  "with Shift by ten; Q and E turn it, W and S make it larger and smaller; Page Up and Page Down choose another part. " +
  "Space plays, comma and full stop step through frames, K sets or deletes a key. In the polygon tool arrow keys move a " +
  "cross, Space sets a point, Enter closes the outline.";

export class CutAndDragHands {
  constructor(editor) {
    Object.assign(this, { editor, tool: "select", frame: 0, selected: null, point: null, onion: false, keyWords: KEY_WORDS });
    this.outline = new OutlineTool(editor, (polygon) => this.cutOut(polygon));
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
    const tool = (id, label, keys) => ({ id, icon: id, label, keys, run: () => this.use(id), pressed: () => this.tool === id });
    this.buttons = [
      [
        tool("select", "Select, move, turn and scale", "V"), { ...tool("points", "Edit points", "A"), enabled: () => this.current },
        tool("polygon", "Polygon: click its corners", "P"), tool("lasso", "Lasso: draw round the part", "L"),
      ],
      [{ id: "onion", icon: "onion", label: "Onion skin", keys: "O", always: true, pressed: () => this.onion, run: () => (this.onion = !this.onion) }],
    ];
  }

  get objects() { return this.editor.state.objects; }
  get current() { return this.objects.find((object) => object.id === this.selected) ?? null; }
  get frames() { return Math.max(Math.round(Number(this.#widget("frames")?.value)) || FALLBACK_FRAMES, 1); }
  get hole() { return this.#widget("hole")?.value === "keep" ? "keep" : "fill"; }

  #widget(name) { return this.editor.node.widgets?.find((widget) => widget.name === name); }

  read(text) {
    const { motion, problem, locked } = parseMotion(text);
    this.point = null;
    return { state: motion, problem, locked };
  }

  write(motion) { return JSON.stringify(motion); }

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
    const has = () => this.current, many = () => this.objects.length;
    this.list = new ObjectList(this.editor, this, [
      { id: "raise", icon: "raise", label: "Bring forward", keys: "]", run: () => this.reorder(1), enabled: () => has() && this.objects.at(-1) !== has() },
      { id: "lower", icon: "lower", label: "Send backward", keys: "[", run: () => this.reorder(-1), enabled: () => has() && this.objects[0] !== has() },
      { id: "rename", icon: "rename", label: "Rename", keys: "F2", run: () => this.list.rename(this.selected), enabled: has },
      { id: "twin", icon: "twin", label: "Duplicate", keys: "Ctrl+D", run: () => this.duplicate(), enabled: () => has() && many() < MOST_OBJECTS },
      { id: "copy", icon: "copy", label: "Copy", keys: "Ctrl+C", run: () => this.editor.copy(), enabled: has },
      { id: "paste", icon: "paste", label: "Paste", keys: "Ctrl+V", run: () => this.editor.paste(), enabled: () => this.editor.canPaste },
      { id: "remove", icon: "remove", label: "Delete", keys: "Delete", run: () => this.remove(), enabled: has },
    ]);
    const field = (id, label, title, step, factor = 1) => ({
      id, label, title, step, get: () => poseAt(this.current, this.frame)[id] * factor,
      set: (value) => this.setPose({ [id]: value / factor }),
    });
    this.fields = new NumberFields("Place of the selected part at this frame", [
      field("x", "X %", "Moved to the right, percent of the picture's width", 1, 100),
      field("y", "Y %", "Moved down, percent of the picture's height", 1, 100),
      field("angle", "Turn \u00b0", "Turned clockwise, degrees", 5), field("scale", "Size %", "Size, percent", 5, 100),
    ]);
    return [this.list.element, this.list.list, this.fields.element];
  }

  below() {
    const own = (change) => (...values) => {
      this.change(change(this.current, ...values));
      this.editor.commit();
    };
    this.timeline = new Timeline({
      label: "Timeline", ways: WAYS, travel, player: this.player,
      frames: () => this.frames, frame: () => this.frame, keys: () => this.current?.keys ?? [],
      title: () => this.current?.name ?? "", canKey: () => Boolean(this.current) && !this.editor.locked,
      seek: (frame) => {
        this.frame = frame;
        this.editor.refresh();
      },
      addKey: own(edits.addKey), removeKey: own(edits.removeKey), setWay: own(edits.setWay),
      moveKey: (index, frame) => this.change(edits.moveKey(this.current, index, frame)), keyMoved: () => this.editor.commit(),
    });
    return [this.timeline.element];
  }

  describe() {
    const { current } = this, beyond = this.objects.filter((object) => (object.keys.at(-1)?.frame ?? 0) >= this.frames);
    if (beyond.length)
      return `${beyond[0].name || beyond[0].id} has a key beyond the last frame ${this.frames - 1}: raise frames, or move the key.`;
    if (this.tool === "lasso") return "Draw round the part to cut out.";
    if (this.tool === "polygon")
      return this.outline.corners > 2 ? "Click the first point, or press Enter, to close the outline." : "Click the corners of the part.";
    if (this.tool === "points") return "Drag points; press on the outline to add one; Delete removes the chosen one.";
    if (!this.objects.length) return "Cut out a part of the picture first: lasso or polygon.";
    if (!current) return "Click a part to select it.";
    const keys = current.keys.length;
    return keys ? `${current.name}: frame ${this.frame}, ${keys} key${keys > 1 ? "s" : ""}.` : `${current.name} rests. Drag it: keys are set by themselves.`;
  }

  colourOf(object) {
    const sum = [...object.id].reduce((total, letter) => (total * 31 + letter.charCodeAt(0)) % 9973, 7);
    return PALETTE[sum % PALETTE.length];
  }

  // What is changed, and how: change() on the way, editor.commit() at the end.

  change(object) { this.editor.state = edits.replaceObject(this.editor.state, object); }

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

  duplicate() { return Boolean(this.current) && this.#insert(edits.addCopy(this.editor.state, this.current)); }

  copy() { return this.current && JSON.stringify(this.current); }

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
    let first = null, centre = null, moved = false;
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
        return draw.pointHandles(this, this.current)[edge.index + 1];
      }
    }
    const object = this.objectAt(spot);
    this.selected = object?.id ?? (this.tool === "points" ? this.selected : null);
    this.point = null;
    if (!object || this.tool !== "select") return null;
    const { frame } = this.editor.view;
    return this.poseDrag(object, (start, now, _, from, moving) => {
      let across = now.place[0] - from[0], down = now.place[1] - from[1];
      if (moving.shiftKey) Math.abs(across) > Math.abs(down) ? (down = 0) : (across = 0);
      return { ...start, x: start.x + across / frame.width, y: start.y + down / frame.height };
    });
  }

  hover(spot) { this.outline.hover(spot); }

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
    const key = event.key.toLowerCase(), tools = { v: "select", a: "points", p: "polygon", l: "lasso" };
    const orders = { "[": -1, "]": 1 }, fine = event.shiftKey ? 1 : 0;
    if (event.ctrlKey || event.metaKey) return key === "d" ? (this.duplicate(), true) : false;
    if (event.altKey) return false;
    if (this.tool === "polygon" && onCanvas && this.outline.key(event)) return true;
    if (key in tools) return this.use(tools[key]), true;
    if (key === "o") return (this.onion = !this.onion), true;
    if (key in orders) return this.reorder(orders[key]), true;
    if (key === "f2" && this.current) return this.list.rename(this.selected), true;
    if (key === "delete" || key === "backspace") return this.remove(), true;
    const isButton = !onCanvas && (key === " " || key === "enter");
    if (!isButton && this.timeline.key(event)) return true;
    if (!onCanvas) return false;
    if (key === "pageup" || key === "pagedown") return this.#selectNext(key === "pageup" ? 1 : -1), true;
    if (!this.current) return false;
    if (event.key in MOVES) return this.#nudge(MOVES[event.key], STEPS.move[fine]), true;
    const pose = poseAt(this.current, this.frame), turn = { q: -1, e: 1 }, grow = { s: -1, w: 1 };
    if (key in turn) return this.setPose({ angle: pose.angle + turn[key] * STEPS.turn[fine] }), true;
    if (key in grow) return this.setPose({ scale: pose.scale * STEPS.grow[fine] ** grow[key] }), true;
    return false;
  }

  #nudge(direction, pixels) {
    const { width, height } = this.editor.view.picture, across = (direction[0] * pixels) / width, down = (direction[1] * pixels) / height;
    if (this.tool === "points") {
      if (this.point === null) return;
      const [x, y] = this.current.polygon[this.point];
      this.change(edits.setPoint(this.current, this.point, [x + across, y + down]));
      return this.editor.commit();
    }
    const { x, y } = poseAt(this.current, this.frame);
    this.setPose({ x: x + across, y: y + down });
  }

  #selectNext(direction) {
    if (this.tool === "points") {
      const count = this.current.polygon.length;
      this.point = ((this.point ?? -direction) + direction + count) % count;
      return;
    }
    const at = this.objects.findIndex((object) => object.id === this.selected), count = this.objects.length;
    if (count) this.selected = this.objects[at < 0 ? 0 : (at + direction + count) % count].id;
  }

  // Drawing

  drawPicture(context, pane) {
    const moved = this.tool === "select" || this.player.playing;
    if (!pane.picture || !this.objects.length || !moved) return false;
    const frame = pane.view.frame;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.preview.frame(pane.picture, this.objects, this.frame, this.hole), frame.x, frame.y, frame.width, frame.height);
    return true;
  }

  draw(context) {
    if (this.player.playing && this.editor.picture) return;
    const { current } = this, frame = this.tool === "select" ? this.frame : null;
    if (this.onion) for (const object of current ? [current] : this.objects) draw.drawGhosts(context, this, object);
    for (const object of this.objects) {
      if (object === current) continue;
      draw.trace(context, draw.outlineOn(this, object, frame));
      draw.stroke(context, this.colourOf(object), 1);
    }
    if (current) this.#drawCurrent(context, current, frame);
    this.outline.draw(context);
  }

  #drawCurrent(context, current, frame) {
    if (frame !== null) draw.drawPath(context, this, current);
    draw.trace(context, draw.outlineOn(this, current, frame));
    context.fillStyle = this.colourOf(current);
    context.globalAlpha = frame === null ? 0.18 : 0.08;
    context.fill();
    context.globalAlpha = 1;
    draw.stroke(context, this.colourOf(current), 2);
    if (this.tool === "select") {
      const { corners, middle: top, turner } = draw.boxOn(this, current, frame);
      draw.trace(context, corners);
      draw.stroke(context, COLOURS.line, 1, [4, 4]);
      draw.trace(context, [top, turner], false);
      draw.stroke(context, COLOURS.line, 1);
    }
    for (const handle of this.handles()) draw.drawHandle(context, handle);
  }
}
