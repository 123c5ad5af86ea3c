// What the Blob Layout editor draws: blobs from the bottom to the top, ghosts, the selected one's way and handles.
// `hands` is the editor's BlobLayoutHands.

import { onCanvas, turnerOf } from "./blob_handles.mjs";
import { blobColour, captionAt, ellipseAt, isThere } from "./blob_layout.mjs";
import { drawCovering, drawHandle, drawWay, shownFrames, stroke, trace } from "./drawing.mjs";
import { COLOURS } from "./editor_style.mjs";

const GROUND = "#1b1d21";
const GRID = "rgba(255, 255, 255, 0.06)";
const CELLS = 8; // along the shorter side
const TINT = { plain: 0.2, chosen: 0.3 };
const BENEATH = "#9aa3b2";
const TAG = { font: "12px Inter, system-ui, sans-serif", high: 19, most: 170, letters: 60 };
const GHOST = { alpha: 0.75, dash: [5, 4] };

// The ground: the picture behind, or an empty one with a grid to place things by.
export function drawGround(context, hands, pane) {
  const { frame } = pane.view,
    { x, y, width, height } = frame;
  if (pane.picture && hands.backdrop) return drawCovering(context, pane.picture, frame);
  context.fillStyle = GROUND;
  context.fillRect(x, y, width, height);
  const cell = Math.min(width, height) / CELLS;
  context.fillStyle = GRID;
  for (let at = cell; at < width - 1; at += cell) context.fillRect(Math.round(x + at), y, 1, height);
  for (let at = cell; at < height - 1; at += cell) context.fillRect(x, Math.round(y + at), width, 1);
}

function outline(context, shown) {
  context.beginPath();
  context.ellipse(...shown.middle, shown.a, shown.b, shown.turned, 0, 2 * Math.PI);
}

export function drawBlobs(context, hands) {
  const { current, frame } = hands,
    { view } = hands.editor;
  for (const [index, blob] of hands.beneath.entries()) drawBeneath(context, view, blob, index, frame);
  if (hands.onion && !hands.player.playing)
    for (const blob of current ? [current] : hands.blobs) drawGhosts(context, view, blob, frame);
  for (const blob of hands.blobs) drawBlob(context, hands, blob);
  if (current && !hands.player.playing) drawCurrent(context, hands, current);
  hands.blobs.forEach((blob, index) => {
    if (!isThere(blob, frame) && blob !== current) return;
    const { middle } = onCanvas(view, hands.at(blob));
    drawTag(context, view, middle, `${index + 1}  ${captionAt(blob, frame)}`, blobColour(blob.id));
  });
  for (const handle of hands.handles()) drawHandle(context, handle);
}

function drawBlob(context, hands, blob) {
  const chosen = blob === hands.current,
    there = isThere(blob, hands.frame),
    colour = blobColour(blob.id);
  if (!there && hands.player.playing) return;
  outline(context, onCanvas(hands.editor.view, hands.at(blob)));
  if (there) {
    context.fillStyle = colour;
    context.globalAlpha = chosen ? TINT.chosen : TINT.plain;
    context.fill();
    context.globalAlpha = 1;
    stroke(context, colour, chosen ? 2.5 : 1.5);
    return;
  }
  context.globalAlpha = chosen ? 0.9 : 0.45;
  stroke(context, colour, 1.25, [2, 5]);
  context.globalAlpha = 1;
}

function drawBeneath(context, view, blob, index, frame) {
  if (!isThere(blob, frame)) return;
  const shown = onCanvas(view, ellipseAt(blob, frame));
  outline(context, shown);
  stroke(context, BENEATH, 1, [3, 4]);
  drawTag(context, view, shown.middle, captionAt(blob, frame) || `${index + 1}`, BENEATH);
}

// The blob at the keys before and after the frame.
function drawGhosts(context, view, blob, frame) {
  const before = blob.keys.findLast((key) => key.frame < frame),
    after = blob.keys.find((key) => key.frame > frame),
    colour = blobColour(blob.id);
  for (const key of [before, after].filter(Boolean)) {
    const shown = onCanvas(view, key);
    outline(context, shown);
    context.globalAlpha = 0.12;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = GHOST.alpha;
    stroke(context, colour, 1.25, GHOST.dash);
    context.globalAlpha = 1;
    drawTag(context, view, [shown.middle[0], shown.middle[1] - shown.b], `frame ${key.frame}`, BENEATH);
  }
}

function drawCurrent(context, hands, blob) {
  const { view } = hands.editor;
  const place = (frame) => {
    const { x, y } = ellipseAt(blob, frame);
    return view.toCanvas([x, y]);
  };
  const keys = blob.keys.map((key) => key.frame);
  if (keys.length > 1)
    drawWay(context, shownFrames(keys[0], keys.at(-1)).map(place), keys.map(place), COLOURS.line);
  const shown = onCanvas(view, hands.at(blob)),
    [x, y] = shown.middle;
  const end = [x - shown.across[0] * shown.b, y - shown.across[1] * shown.b];
  trace(context, [end, turnerOf(view, shown)], false);
  stroke(context, COLOURS.line, 1);
}

// Words on a colour, with their middle at a place, inside the canvas.
function drawTag(context, view, [x, y], words, colour) {
  context.font = TAG.font;
  context.textBaseline = "middle";
  context.textAlign = "center";
  const whole = words.trim().slice(0, TAG.letters);
  let text = whole;
  for (let length = whole.length; length > 2 && context.measureText(text).width > TAG.most; length--)
    text = `${whole.slice(0, length).trim()}\u2026`;
  const wide = context.measureText(text).width + 12,
    { area } = view;
  if (x < area.x - wide || x > area.x + area.width + wide || y < area.y - TAG.high || y > area.y + area.height + TAG.high)
    return;
  const left = Math.min(Math.max(x - wide / 2, area.x + 2), area.x + area.width - wide - 2);
  const top = Math.min(Math.max(y - TAG.high / 2, area.y + 2), area.y + area.height - TAG.high - 2);
  context.beginPath();
  context.roundRect(left, top, wide, TAG.high, 4);
  context.fillStyle = colour;
  context.globalAlpha = 0.92;
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = "#101113";
  context.fillText(text, left + wide / 2, top + TAG.high / 2 + 0.5);
}
