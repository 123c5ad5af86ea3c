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
