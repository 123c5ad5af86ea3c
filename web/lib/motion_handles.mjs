// What the Cut and Drag editor draws over the picture, and the handles on it. `hands` is the editor's CutAndDragHands.

import { drawHandle, drawWay, shownFrames, stroke, trace } from "./drawing.mjs";
import { COLOURS } from "./editor_style.mjs";
import { bounds, pivotOf, poseAt, toFractions, toPixels } from "./drag_motion.mjs";
import { setPoint, setPivot, shownPoint, sourcePoint } from "./motion_edits.mjs";

const ROOM = 7; // CSS pixels between an outline and its box
const STALK = 26;
const SNAP_DEGREES = 15;
const GHOSTS = 5;
const GHOST_ALPHA = 0.3;

// The outline on the canvas: as it is at a frame, or (frame null) in the first picture.
export function outlineOn(hands, object, frame) {
  const { view } = hands.editor,
    { width, height } = view.picture;
  return object.polygon.map((point) =>
    view.toCanvas(frame === null ? point : shownPoint(object, frame, point, width, height)),
  );
}

// The corners of an object's box on the canvas, from the top left clockwise, turned with it, and where it is turned by.
export function boxOn(hands, object, frame) {
  const { view } = hands.editor,
    { width, height } = view.picture;
  const shown = (point) => view.toCanvas(shownPoint(object, frame, point, width, height));
  const room = ROOM / ((view.frame.width / width) * poseAt(object, frame).scale);
  const [left, top, right, bottom] = bounds(object.polygon.map((point) => toPixels(point, width, height)));
  const at = (x, y) => shown(toFractions([x, y], width, height));
  const corners = [
    at(left - room, top - room),
    at(right + room, top - room),
    at(right + room, bottom + room),
    at(left - room, bottom + room),
  ];
  const middle = [(corners[0][0] + corners[1][0]) / 2, (corners[0][1] + corners[1][1]) / 2];
  const up = [corners[0][0] - corners[3][0], corners[0][1] - corners[3][1]],
    length = Math.hypot(...up) || 1;
  // It stays on the canvas, so that it can be reached wherever the object is.
  const { area } = view,
    sides = [
      [area.x, area.width],
      [area.y, area.height],
    ];
  const turner = middle.map((value, axis) =>
    Math.min(
      Math.max(value + (up[axis] / length) * STALK, sides[axis][0] + ROOM),
      sides[axis][0] + sides[axis][1] - ROOM,
    ),
  );
  return { corners, middle, turner, pivot: shown(pivotOf(object)) };
}

export function selectHandles(hands, object) {
  const { corners, turner, pivot } = boxOn(hands, object, hands.frame);
  const away = (place, from) => Math.max(Math.hypot(place[0] - from[0], place[1] - from[1]), 1);
  const towards = (place, from) => Math.atan2(place[1] - from[1], place[0] - from[0]);
  const scales = corners.map((corner, index) => ({
    at: corner,
    shape: "square",
    cursor: ["nwse-resize", "nesw-resize"][(index + Math.round(poseAt(object, hands.frame).angle / 90)) & 1],
    ...hands.poseDrag(object, (start, spot, centre, from) => ({
      ...start,
      scale: (start.scale * away(spot.place, centre)) / away(from, centre),
    })),
  }));
  let turned = 0,
    last = null;
  const turn = {
    at: turner,
    shape: "round",
    cursor: "grab",
    ...hands.poseDrag(object, (start, spot, centre, from, event) => {
      const now = towards(spot.place, centre),
        step = now - (last ?? towards(from, centre));
      last = now;
      turned += (Math.atan2(Math.sin(step), Math.cos(step)) * 180) / Math.PI;
      const angle = start.angle + turned;
      return { ...start, angle: event.shiftKey ? Math.round(angle / SNAP_DEGREES) * SNAP_DEGREES : angle };
    }),
  };
  const { width, height } = hands.editor.view.picture;
  const centre = {
    at: pivot,
    shape: "pivot",
    cursor: "move",
    ...changes(hands, (spot) =>
      setPivot(object, sourcePoint(object, hands.frame, spot.point, width, height), width, height),
    ),
  };
  return [...scales, centre, turn];
}

export function pointHandles(hands, object) {
  return outlineOn(hands, object, null).map((at, index) => {
    const drag = changes(hands, (spot) => setPoint(hands.current, index, spot.point));
    const chosen = index === hands.point;
    return {
      at,
      shape: chosen ? "chosen" : "point",
      cursor: "move",
      drag: drag.drag,
      end: () => {
        hands.point = index;
        drag.end();
      },
    };
  });
}

// A drag that changes an object: made(spot) -> the new one. Nothing is written where nothing was dragged.
function changes(hands, made) {
  let moved = false;
  return {
    drag: (spot) => {
      moved = true;
      hands.change(made(spot));
    },
    end: () => moved && hands.editor.commit(),
  };
}

function drawPath(context, hands, object) {
  if (object.keys.length < 2) return;
  const { view } = hands.editor,
    { width, height } = view.picture,
    pivot = pivotOf(object),
    keys = object.keys.map((key) => key.frame);
  const place = (frame) => view.toCanvas(shownPoint(object, frame, pivot, width, height));
  drawWay(context, shownFrames(keys[0], keys.at(-1)).map(place), keys.map(place), hands.colourOf(object), 1.25);
}

// The object as it is at other frames, faintly: at its keys and evenly between them.
function drawGhosts(context, hands, object) {
  if (object.keys.length < 2) return;
  const { editor } = hands,
    first = object.keys[0].frame,
    last = object.keys.at(-1).frame;
  const between = Array.from({ length: GHOSTS }, (_, index) =>
    Math.round(first + ((last - first) * index) / (GHOSTS - 1)),
  );
  const frames = new Set([...between, ...object.keys.slice(0, GHOSTS * 2).map((key) => key.frame)]);
  frames.delete(hands.frame);
  for (const frame of frames) {
    if (editor.picture) {
      const at = (point) =>
        editor.view.toCanvas(shownPoint(object, frame, point, editor.view.picture.width, editor.view.picture.height));
      const [x, y] = at([0, 0]),
        across = at([1, 0]),
        down = at([0, 1]);
      context.save();
      trace(context, outlineOn(hands, object, frame));
      context.clip();
      context.globalAlpha = GHOST_ALPHA;
      context.transform(across[0] - x, across[1] - y, down[0] - x, down[1] - y, x, y);
      context.drawImage(editor.picture, 0, 0, 1, 1);
      context.restore();
    }
    trace(context, outlineOn(hands, object, frame));
    context.globalAlpha = 0.8;
    context.strokeStyle = hands.colourOf(object);
    context.lineWidth = 1;
    context.stroke();
    context.globalAlpha = 1;
  }
}

// All that lies over the picture: outlines, the selected object's handles and path, what is being drawn.
export function drawMotion(context, hands) {
  const { current } = hands,
    frame = hands.tool === "select" ? hands.frame : null;
  if (hands.onion) for (const object of current ? [current] : hands.objects) drawGhosts(context, hands, object);
  for (const object of hands.objects) {
    if (object === current) continue;
    trace(context, outlineOn(hands, object, frame));
    stroke(context, hands.colourOf(object), 1);
  }
  if (current) drawCurrent(context, hands, current, frame);
  hands.outline.draw(context);
}

function drawCurrent(context, hands, current, frame) {
  if (frame !== null) drawPath(context, hands, current);
  trace(context, outlineOn(hands, current, frame));
  context.fillStyle = hands.colourOf(current);
  context.globalAlpha = frame === null ? 0.18 : 0.08;
  context.fill();
  context.globalAlpha = 1;
  stroke(context, hands.colourOf(current), 2);
  if (hands.tool === "select") {
    const { corners, middle, turner } = boxOn(hands, current, frame);
    trace(context, corners);
    stroke(context, COLOURS.line, 1, [4, 4]);
    trace(context, [middle, turner], false);
    stroke(context, COLOURS.line, 1);
  }
  for (const handle of hands.handles()) drawHandle(context, handle);
}
