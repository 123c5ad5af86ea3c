// What the editors draw with: lines that are seen on any picture, and handles. Places in CSS pixels.

import { COLOURS } from "./editor_style.mjs";

export function trace(context, places, closed = true) {
  context.beginPath();
  places.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

// Two strokes, dark under light, are seen on any picture.
export function stroke(context, colour, width = 1.5, dash = []) {
  context.lineJoin = context.lineCap = "round";
  context.setLineDash([]);
  context.strokeStyle = COLOURS.shade;
  context.lineWidth = width + 2;
  context.stroke();
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

// Shapes: square, round, point, chosen, pivot.
export function drawHandle(context, { at: [x, y], shape }) {
  context.beginPath();
  if (shape === "pivot") {
    context.moveTo(x - 8, y);
    context.lineTo(x + 8, y);
    context.moveTo(x, y - 8);
    context.lineTo(x, y + 8);
    context.moveTo(x + 4, y);
    context.arc(x, y, 4, 0, 2 * Math.PI);
    stroke(context, COLOURS.key, 1.5);
    return;
  }
  const size = shape === "point" ? 3.5 : 5;
  if (shape === "round") context.arc(x, y, 6, 0, 2 * Math.PI);
  else context.rect(x - size, y - size, 2 * size, 2 * size);
  context.fillStyle = shape === "chosen" ? COLOURS.key : COLOURS.line;
  stroke(context, COLOURS.accent, 1.5);
  context.fill();
}

// The way of a thing through the clip: a dot a frame, so that its speed is seen, a diamond at every key.
export function drawWay(context, frames, keys, colour, width = 1) {
  trace(context, frames, false);
  stroke(context, colour, width);
  context.fillStyle = colour;
  for (const [x, y] of frames) context.fillRect(x - 1.25, y - 1.25, 2.5, 2.5);
  for (const [x, y] of keys) {
    trace(context, [
      [x, y - 5],
      [x + 5, y],
      [x, y + 5],
      [x - 5, y],
    ]);
    stroke(context, COLOURS.key, 1);
    context.fillStyle = COLOURS.key;
    context.fill();
  }
}

// The frames from a first to a last one, at most `most` of them.
export function shownFrames(first, last, most = 200) {
  const frames = [];
  for (let frame = first; frame <= last; frame += Math.max(Math.ceil((last - first) / most), 1)) frames.push(frame);
  return frames;
}

// A picture's middle, cut to the sides of a rectangle of the canvas and drawn into it.
export function drawCovering(context, picture, { x, y, width, height }) {
  const { naturalWidth, naturalHeight } = picture;
  const scale = Math.min(naturalWidth / width, naturalHeight / height),
    across = width * scale,
    down = height * scale;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    picture,
    (naturalWidth - across) / 2,
    (naturalHeight - down) / 2,
    across,
    down,
    x,
    y,
    width,
    height,
  );
}
