// What is pressed and dragged in the Blob Layout editor. `hands` is the editor's BlobLayoutHands.

import { addBlob, newBlob } from "./blob_edits.mjs";
import { MOST_BLOBS } from "./blob_layout.mjs";

const START_PIXELS = 3; // a drag begins after this many CSS pixels
const SNAP_DEGREES = 15;
const STALK = 24; // from an ellipse to the handle that turns it
const LEAST = 11; // from the middle to a handle
const RIM = 8;
const CURSORS = ["ew-resize", "nwse-resize", "ns-resize", "nesw-resize"];
const RADIANS = Math.PI / 180;

// An ellipse on the canvas: its middle, its half axes in CSS pixels and their directions.
export function onCanvas(view, { x, y, a, b, angle }) {
  const turned = angle * RADIANS,
    { height } = view.frame;
  return {
    middle: view.toCanvas([x, y]),
    a: a * height,
    b: b * height,
    turned,
    along: [Math.cos(turned), Math.sin(turned)],
    across: [-Math.sin(turned), Math.cos(turned)],
  };
}

function from([x, y], [across, down], far) {
  return [x + across * far, y + down * far];
}

// Where the handle that turns it stands: on the canvas, wherever the ellipse is.
export function turnerOf(view, shown) {
  const { area } = view,
    [x, y] = from(shown.middle, shown.across, -(Math.max(shown.b, LEAST) + STALK));
  return [
    Math.min(Math.max(x, area.x + RIM), area.x + area.width - RIM),
    Math.min(Math.max(y, area.y + RIM), area.y + area.height - RIM),
  ];
}

// The selected blob's: the ends of both axes, and the one that turns it.
export function blobHandles(hands) {
  const { view } = hands.editor,
    shown = onCanvas(view, hands.at(hands.current));
  const eighth = Math.round(hands.at(hands.current).angle / 45);
  const ends = [
    ["a", shown.along, 1],
    ["a", shown.along, -1],
    ["b", shown.across, 1],
    ["b", shown.across, -1],
  ].map(([axis, direction, sign]) => ({
    at: from(shown.middle, direction, sign * Math.max(shown[axis], LEAST)),
    shape: "square",
    axis,
    cursor: CURSORS[(((eighth + (axis === "b" ? 2 : 0)) % 4) + 4) % 4],
    ...drags(hands, (start, spot, event) => {
      const now = onCanvas(view, start),
        [x, y] = [spot.place[0] - now.middle[0], spot.place[1] - now.middle[1]],
        way = axis === "a" ? now.along : now.across;
      const length = Math.abs(x * way[0] + y * way[1]) / view.frame.height;
      if (!event.shiftKey) return { [axis]: length };
      const grown = length / start[axis];
      return { a: start.a * grown, b: start.b * grown };
    }),
  }));
  return [...ends, turner(hands, shown)];
}

function turner(hands, shown) {
  const { view } = hands.editor;
  const towards = (place) =>
    Math.atan2(place[1] - shown.middle[1], place[0] - shown.middle[0]) / RADIANS;
  return {
    at: turnerOf(view, shown),
    shape: "round",
    cursor: "grab",
    ...drags(hands, (start, spot, event, first) => {
      const angle = start.angle + towards(spot.place) - towards(first.place);
      return { angle: event.shiftKey ? Math.round(angle / SNAP_DEGREES) * SNAP_DEGREES : angle };
    }),
  };
}

// A drag of a blob by itself: with Shift along one axis of the picture. still() is called where it was only pressed.
export function moving(hands, still) {
  return drags(
    hands,
    (start, spot, event, first) => {
      let across = spot.point[0] - first.point[0],
        down = spot.point[1] - first.point[1];
      const { width, height } = hands.editor.view.frame;
      if (event.shiftKey) Math.abs(across) * width > Math.abs(down) * height ? (down = 0) : (across = 0);
      return { x: start.x + across, y: start.y + down };
    },
    still,
  );
}

// A drag of the selected blob: changed(ellipse before, spot, event, spot where it began) -> what becomes different. A
// press alone writes nothing.
function drags(hands, changed, still = () => {}) {
  let before = null;
  return {
    drag: (spot, event, start) => {
      if (!before && !isFar(spot, start)) return;
      before ??= hands.at(hands.current);
      hands.change(changed(before, spot, event, start));
    },
    end: () => (before ? hands.editor.commit() : still()),
  };
}

function isFar(spot, start) {
  return Math.hypot(spot.place[0] - start.place[0], spot.place[1] - start.place[1]) >= START_PIXELS;
}

// A drag that draws a new blob into the box between where it began and where it is; with Shift a circle.
export function drawing(hands) {
  const { editor } = hands,
    before = hands.selected;
  let drawn = false;
  return {
    drag: (spot, event, start) => {
      if (!drawn && !isFar(spot, start)) return;
      const { width, height } = editor.view.frame;
      let across = (spot.point[0] - start.point[0]) * (width / height),
        down = spot.point[1] - start.point[1];
      if (event.shiftKey) {
        const side = Math.max(Math.abs(across), Math.abs(down));
        across = side * (Math.sign(across) || 1);
        down = side * (Math.sign(down) || 1);
      }
      const box = {
        x: start.point[0] + (across * height) / width / 2,
        y: start.point[1] + down / 2,
        a: Math.abs(across) / 2,
        b: Math.abs(down) / 2,
      };
      if (drawn) return hands.change(box);
      const state = addBlob(editor.state, newBlob(box));
      if (!state) return editor.say(`There are ${MOST_BLOBS} blobs already; no more can stand in a layout.`);
      drawn = true;
      editor.state = state;
      hands.selected = state.blobs.at(-1).id;
    },
    end: () => {
      if (!drawn) return;
      hands.tool = "select";
      editor.commit();
      hands.writeCaption();
    },
    cancel: () => (hands.selected = before),
  };
}
