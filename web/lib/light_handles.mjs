// What the Light Source editor draws over the light, and the handles on it. `hands` is the editor's LightSourceHands.

import { drawHandle, drawWay, shownFrames, stroke, trace } from "./drawing.mjs";
import { COLOURS } from "./editor_style.mjs";
import { direction, lightAt, toHex } from "./light_maps.mjs";

const START_PIXELS = 3; // a drag begins after this many CSS pixels
const SNAP_DEGREES = 15;
const RIM = 20; // CSS pixels from the picture's rim to a sun, inwards
const SUN = 9;
const LAMP = 7;
const RAYS = 8;
const ARROW = 46;

// The picture's middle, and where a side light of this angle has its sun.
function sunPlace(view, angle) {
  const { x, y, width, height } = view.frame,
    [across, down] = direction(angle);
  const far = Math.min(
    (Math.max(width / 2 - RIM, 4)) / Math.max(Math.abs(across), 1e-9),
    (Math.max(height / 2 - RIM, 4)) / Math.max(Math.abs(down), 1e-9),
  );
  const middle = [x + width / 2, y + height / 2];
  return { middle, at: [middle[0] + across * far, middle[1] + down * far] };
}

// CSS pixels of a point light's radius.
function radiusPixels(view, radius) {
  return radius * Math.min(view.frame.width, view.frame.height);
}

// Handles of all lights, those of the selected one on top.
export function lightHandles(hands) {
  const order = hands.lights.map((_, index) => index).filter((index) => index !== hands.selected);
  if (hands.current) order.push(hands.selected);
  return order.flatMap((index) => {
    const light = hands.lights[index];
    if (light.kind === "side") return [sunHandle(hands, index)];
    return [lampHandle(hands, index), ...(index === hands.selected ? [radiusHandle(hands, index)] : [])];
  });
}

function sunHandle(hands, index) {
  const now = hands.at(index),
    { at } = sunPlace(hands.editor.view, now.angle);
  return {
    at,
    index,
    shape: "sun",
    radius: SUN,
    cursor: "grab",
    ...drags(hands, index, (start, spot, event) => {
      const { middle } = sunPlace(hands.editor.view, start.angle);
      let angle = (Math.atan2(spot.place[1] - middle[1], spot.place[0] - middle[0]) * 180) / Math.PI;
      if (event.shiftKey) angle = Math.round(angle / SNAP_DEGREES) * SNAP_DEGREES;
      return { angle: hands.turned(index, angle) };
    }),
  };
}

function lampHandle(hands, index) {
  const now = hands.at(index);
  return {
    at: hands.editor.view.toCanvas([now.x, now.y]),
    index,
    shape: "lamp",
    radius: LAMP,
    cursor: "move",
    ...drags(hands, index, (start, spot, event, from) => {
      let across = spot.point[0] - from.point[0],
        down = spot.point[1] - from.point[1];
      const { width, height } = hands.editor.view.frame;
      if (event.shiftKey) Math.abs(across) * width > Math.abs(down) * height ? (down = 0) : (across = 0);
      return { x: start.x + across, y: start.y + down };
    }),
  };
}

function radiusHandle(hands, index) {
  const { view } = hands.editor,
    now = hands.at(index),
    [x, y] = view.toCanvas([now.x, now.y]);
  const far = radiusPixels(view, now.radius);
  // On the side that is on the canvas.
  const places = [
    [x + far, y],
    [x - far, y],
    [x, y + far],
    [x, y - far],
  ];
  const { area } = view;
  const right = area.x + area.width - 6,
    bottom = area.y + area.height - 6;
  const at = places.find((place) => place[0] > area.x + 6 && place[0] < right && place[1] > area.y + 6 && place[1] < bottom);
  return {
    at: at ?? [Math.min(Math.max(x + far, area.x + 6), right), Math.min(Math.max(y, area.y + 6), bottom)],
    index,
    shape: "square",
    cursor: "ew-resize",
    ...drags(hands, index, (start, spot) => {
      const [middleX, middleY] = view.toCanvas([start.x, start.y]);
      return { radius: Math.hypot(spot.place[0] - middleX, spot.place[1] - middleY) / radiusPixels(view, 1) };
    }),
  };
}

// A drag of one light: changed(light before, spot, event, spot where it began) -> what becomes different. A press alone
// selects it and writes nothing.
function drags(hands, index, changed) {
  let first = null;
  return {
    drag: (spot, event, start) => {
      const far = Math.hypot(spot.place[0] - start.place[0], spot.place[1] - start.place[1]);
      if (!first && far < START_PIXELS) return;
      if (!first) {
        hands.selected = index;
        first = hands.at(index);
      }
      hands.change(index, changed(first, spot, event, start));
    },
    end: () => {
      hands.selected = index;
      if (first) hands.editor.commit();
    },
  };
}

// All that lies over the light: suns with their arrows, lamps, the selected lamp's radius.
export function drawLightHandles(context, hands) {
  const { view } = hands.editor;
  const handles = hands.handles();
  if (hands.current?.kind === "point") drawPath(context, view, hands.current);
  for (const handle of handles) {
    const chosen = handle.index === hands.selected,
      now = hands.at(handle.index);
    if (handle.shape === "sun") drawSun(context, view, handle.at, now, chosen);
    else if (handle.shape === "lamp") drawLamp(context, view, handle.at, now, chosen);
    else drawHandle(context, handle);
  }
}

function drawPath(context, view, light) {
  if (light.keys.length < 2) return;
  const place = (frame) => {
    const { x, y } = lightAt(light, frame);
    return view.toCanvas([x, y]);
  };
  const keys = light.keys.map((key) => key.frame);
  drawWay(context, shownFrames(keys[0], keys.at(-1)).map(place), keys.map(place), COLOURS.line);
}

function disc(context, [x, y], radius, colour, chosen) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  stroke(context, chosen ? COLOURS.accent : COLOURS.line, chosen ? 2.5 : 1.5);
  context.fillStyle = toHex(colour);
  context.fill();
}

function drawSun(context, view, at, { angle, colour }, chosen) {
  const [across, down] = direction(angle),
    [x, y] = at,
    line = chosen ? COLOURS.accent : COLOURS.line;
  for (let ray = 0; ray < RAYS; ray++) {
    const turn = (ray * 2 * Math.PI) / RAYS,
      [cos, sin] = [Math.cos(turn), Math.sin(turn)];
    trace(
      context,
      [
        [x + cos * (SUN + 2), y + sin * (SUN + 2)],
        [x + cos * (SUN + 6), y + sin * (SUN + 6)],
      ],
      false,
    );
    stroke(context, line, 1.5);
  }
  disc(context, at, SUN - 1, colour, chosen);
  // The way the light takes.
  const tip = [x - across * ARROW, y - down * ARROW];
  trace(context, [[x - across * (SUN + 9), y - down * (SUN + 9)], tip], false);
  stroke(context, line, chosen ? 2 : 1.5);
  trace(
    context,
    [
      [tip[0] + across * 8 - down * 5, tip[1] + down * 8 + across * 5],
      tip,
      [tip[0] + across * 8 + down * 5, tip[1] + down * 8 - across * 5],
    ],
    false,
  );
  stroke(context, line, chosen ? 2 : 1.5);
}

function drawLamp(context, view, at, { radius, colour }, chosen) {
  if (chosen) {
    context.beginPath();
    context.arc(...at, radiusPixels(view, radius), 0, 2 * Math.PI);
    stroke(context, COLOURS.line, 1, [4, 4]);
  }
  disc(context, at, LAMP, colour, chosen);
}
