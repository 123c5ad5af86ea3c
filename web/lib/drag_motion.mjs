// The motion of cut-out parts of a picture, as kernels/drag_motion.py, polygons.py, hole_fill.py and cut_and_drag.py
// compute it: pure functions on numbers and typed arrays, so that the preview shows what the node makes.
// Positions are in fractions of the picture where a name says nothing, in pixels (0 = centre of the first pixel) after
// `toPixels`.

import { travel, WAYS } from "./ways.mjs";

export { travel, WAYS };

export const VERSION = 1;
export const MOST_OBJECTS = 100;
export const MOST_POINTS = 2000;
export const LONGEST_NAME = 80;
const ID = /^[A-Za-z0-9_-]{1,40}$/;
const SAMPLES = 4;
const NO_AREA = 1e-9;
const WHOLE = 1e-6;
const NOTHING_KNOWN = 0.5;

export const REST = Object.freeze({ x: 0, y: 0, angle: 0, scale: 1 });

// Reads the widget's text. Never throws: `problem` says in a sentence what is wrong, `locked` that it must not be
// overwritten. Fields it does not know are kept.
export function parseMotion(text) {
  const empty = { version: VERSION, objects: [] };
  if (!String(text ?? "").trim()) return { motion: empty, problem: "", locked: false };
  let motion;
  try {
    motion = JSON.parse(text);
  } catch {
    return { motion: empty, problem: "The motion text cannot be read; the first change replaces it.", locked: false };
  }
  if (motion === null || typeof motion !== "object" || Array.isArray(motion))
    return { motion: empty, problem: "The motion text holds no motion; the first change replaces it.", locked: false };
  if (motion.version > VERSION)
    return { motion: empty, problem: "A newer version of ComfyUI-PaperNodes made this motion. Update the pack.", locked: true };
  const listed = Array.isArray(motion.objects) ? motion.objects : [];
  const taken = new Set();
  const objects = listed.filter(isObject).slice(0, MOST_OBJECTS).map((object, index) => ({
    ...object,
    id: ownId(object.id, index, taken),
    name: typeof object.name === "string" ? object.name.slice(0, LONGEST_NAME) : "",
    keys: orderedKeys(object.keys),
  }));
  const left = listed.length - objects.length;
  const problem = left ? `${left} object${left > 1 ? "s" : ""} could not be read and will be left out.` : "";
  return { motion: { ...motion, version: VERSION, objects }, problem, locked: false };
}

// The id if the node takes it, else one that it takes.
function ownId(id, index, taken) {
  let own = typeof id === "string" && ID.test(id) ? id : `object${index + 1}`;
  while (taken.has(own)) own = `${own.slice(0, 36)}-${index + 1}`;
  taken.add(own);
  return own;
}

// Keys with all their fields, by rising frames; of two at one frame the later one counts.
function orderedKeys(keys) {
  const found = new Map();
  for (const key of Array.isArray(keys) ? keys : [])
    if (Number.isInteger(key?.frame) && key.frame >= 0) found.set(key.frame, fullKey(key));
  return [...found.values()].sort((a, b) => a.frame - b.frame);
}

function isObject(object) {
  const polygon = object?.polygon;
  return Array.isArray(polygon) && polygon.length >= 3 && polygon.length <= MOST_POINTS && polygon.every(isPoint);
}

function isPoint(point) {
  return Array.isArray(point) && point.length === 2 && point.every(Number.isFinite);
}

function fullKey(key) {
  const full = { ...REST, way: WAYS[0], ...key };
  for (const field of ["x", "y", "angle"]) if (!Number.isFinite(full[field])) full[field] = 0;
  if (!(full.scale > 0)) full.scale = 1;
  if (!WAYS.includes(full.way)) full.way = WAYS[0];
  return full;
}

// {x, y, angle, scale} of an object at a frame.
export function poseAt(object, frame) {
  const keys = object.keys ?? [];
  if (!keys.length) return { ...REST };
  let index = keys.length - 1;
  while (index >= 0 && keys[index].frame > frame) index--;
  const from = keys[Math.max(index, 0)];
  const start = { x: from.x, y: from.y, angle: from.angle, scale: from.scale };
  if (index < 0 || index === keys.length - 1 || from.frame === frame) return start;
  const to = keys[index + 1];
  const u = travel((frame - from.frame) / (to.frame - from.frame), to.way);
  return {
    x: from.x + (to.x - from.x) * u,
    y: from.y + (to.y - from.y) * u,
    angle: from.angle + (to.angle - from.angle) * u,
    scale: from.scale * (to.scale / from.scale) ** u,
  };
}

// The centroid of a polygon's area; where that is not defined or not inside the points' box, their mean.
export function middle(polygon) {
  const [x0, y0] = polygon[0];
  let twice = 0, sumX = 0, sumY = 0;
  polygon.forEach(([px, py], index) => {
    const [qx, qy] = polygon[(index + 1) % polygon.length];
    const ax = px - x0, ay = py - y0, bx = qx - x0, by = qy - y0;
    const cross = ax * by - bx * ay;
    twice += cross;
    sumX += (ax + bx) * cross;
    sumY += (ay + by) * cross;
  });
  const [left, top, right, bottom] = bounds(polygon);
  if (Math.abs(twice / 2) >= NO_AREA) {
    const x = x0 + sumX / (3 * twice), y = y0 + sumY / (3 * twice);
    if (left <= x && x <= right && top <= y && y <= bottom) return [x, y];
  }
  const total = polygon.reduce((sum, point) => [sum[0] + point[0], sum[1] + point[1]], [0, 0]);
  return [total[0] / polygon.length, total[1] / polygon.length];
}

export function pivotOf(object) {
  return isPoint(object.pivot) ? object.pivot : middle(object.polygon);
}

export function bounds(points) {
  let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
  for (const [x, y] of points) {
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  return [left, top, right, bottom];
}

export function toPixels([x, y], width, height) {
  return [x * width - 0.5, y * height - 0.5];
}

export function toFractions([x, y], width, height) {
  return [(x + 0.5) / width, (y + 0.5) / height];
}

// T_f in pixels: p -> [a, b; c, d] p + (x, y).
export function affineOf(object, pose, width, height) {
  const radians = (pose.angle * Math.PI) / 180;
  const cos = Math.cos(radians) * pose.scale, sin = Math.sin(radians) * pose.scale;
  const [x, y] = toPixels(pivotOf(object), width, height);
  return {
    a: cos, b: -sin, c: sin, d: cos,
    x: pose.x * width + (x - (cos * x - sin * y)),
    y: pose.y * height + (y - (sin * x + cos * y)),
  };
}

export function apply(affine, [x, y]) {
  return [affine.a * x + affine.b * y + affine.x, affine.c * x + affine.d * y + affine.y];
}

export function inverse({ a, b, c, d, x, y }) {
  const determinant = a * d - b * c;
  const back = { a: d / determinant, b: -b / determinant, c: -c / determinant, d: a / determinant };
  return { ...back, x: -(back.a * x + back.b * y), y: -(back.c * x + back.d * y) };
}

// Share of each pixel's 4 x 4 points inside a polygon given in pixels, by the non-zero winding rule.
// Returns {alpha: Float32Array, left, top, columns, rows} of the box that the polygon touches.
export function coverage(points, width, height) {
  const box = bounds(points);
  const clip = (value, high) => Math.min(Math.max(value, 0), high);
  const left = clip(Math.floor(box[0] + 0.5), width), right = clip(Math.ceil(box[2] + 0.5), width);
  const top = clip(Math.floor(box[1] + 0.5), height), bottom = clip(Math.ceil(box[3] + 0.5), height);
  const columns = Math.max(right - left, 0), rows = Math.max(bottom - top, 0);
  const alpha = new Float32Array(columns * rows);
  if (!alpha.length) return { alpha, left, top, columns: 0, rows: 0 };
  const across = columns * SAMPLES, down = rows * SAMPLES;
  const turns = new Int16Array((across + 1) * down);
  points.forEach(([px, py], index) => {
    const [qx, qy] = points[(index + 1) % points.length];
    if (py === qy) return;
    const goesDown = py < qy;
    const [xa, ya, xb, yb] = goesDown ? [px, py, qx, qy] : [qx, qy, px, py];
    const slope = (xb - xa) / (yb - ya);
    const first = clip(Math.ceil((ya + 0.5) * SAMPLES - 0.5) - top * SAMPLES, down);
    const beyond = clip(Math.ceil((yb + 0.5) * SAMPLES - 0.5) - top * SAMPLES, down);
    for (let row = first; row < beyond; row++) {
      const y = (row + (top * SAMPLES + 0.5)) / SAMPLES - 0.5;
      const column = Math.ceil((xa + (y - ya) * slope + 0.5) * SAMPLES - 0.5) - left * SAMPLES;
      turns[row * (across + 1) + clip(column, across)] += goesDown ? 1 : -1;
    }
  });
  for (let row = 0; row < down; row++) {
    let winding = 0;
    const line = row * (across + 1), target = Math.floor(row / SAMPLES) * columns;
    for (let column = 0; column < across; column++) {
      winding += turns[line + column];
      if (winding) alpha[target + (column >> 2)] += 1 / (SAMPLES * SAMPLES);
    }
  }
  return { alpha, left, top, columns, rows };
}

// Push-pull interpolation: pixels of weight 0 take on what surrounds them. image: Float32Array [height * width * 3],
// weight: Float32Array [height * width]; returns a new image.
export function fillHoles(image, weight, width, height) {
  const levels = [pullStart(image, weight, width, height)];
  while (levels.at(-1).width > 1 || levels.at(-1).height > 1) levels.push(pull(levels.at(-1)));
  const top = levels.pop();
  let result = top.weight[0] > 0 ? top.colour : new Float32Array(3).fill(NOTHING_KNOWN);
  let coarseWidth = 1, coarseHeight = 1;
  while (levels.length) {
    const level = levels.pop();
    result = push(level, result, coarseWidth, coarseHeight);
    coarseWidth = level.width;
    coarseHeight = level.height;
  }
  return result;
}

function pullStart(image, weight, width, height) {
  const colour = new Float32Array(image.length);
  for (let i = 0; i < weight.length; i++)
    if (weight[i] > 0) for (let c = 0; c < 3; c++) colour[i * 3 + c] = image[i * 3 + c];
  return { colour, weight, width, height };
}

function pull(fine) {
  const width = Math.ceil(fine.width / 2), height = Math.ceil(fine.height / 2);
  const colour = new Float32Array(width * height * 3), weight = new Float32Array(width * height);
  for (let y = 0; y < fine.height; y++)
    for (let x = 0; x < fine.width; x++) {
      const from = y * fine.width + x, to = (y >> 1) * width + (x >> 1), share = fine.weight[from];
      weight[to] += share;
      for (let c = 0; c < 3; c++) colour[to * 3 + c] += fine.colour[from * 3 + c] * share;
    }
  for (let i = 0; i < weight.length; i++) {
    if (weight[i] > 0) for (let c = 0; c < 3; c++) colour[i * 3 + c] /= weight[i];
    weight[i] = Math.min(weight[i], 1);
  }
  return { colour, weight, width, height };
}

function push(level, coarse, coarseWidth, coarseHeight) {
  const { colour, weight, width, height } = level;
  const result = new Float32Array(colour.length);
  for (let y = 0; y < height; y++) {
    const v = Math.max(y / 2 - 0.25, 0), y0 = Math.floor(v), y1 = Math.min(y0 + 1, coarseHeight - 1), fy = v - y0;
    for (let x = 0; x < width; x++) {
      const at = y * width + x, share = weight[at];
      const u = Math.max(x / 2 - 0.25, 0), x0 = Math.floor(u), x1 = Math.min(x0 + 1, coarseWidth - 1), fx = u - x0;
      for (let c = 0; c < 3; c++) {
        const own = colour[at * 3 + c];
        if (share >= 1) { result[at * 3 + c] = own; continue; }
        const upper = coarse[(y0 * coarseWidth + x0) * 3 + c] * (1 - fx) + coarse[(y0 * coarseWidth + x1) * 3 + c] * fx;
        const lower = coarse[(y1 * coarseWidth + x0) * 3 + c] * (1 - fx) + coarse[(y1 * coarseWidth + x1) * 3 + c] * fx;
        result[at * 3 + c] = share * own + (1 - share) * (upper * (1 - fy) + lower * fy);
      }
    }
  }
  return result;
}

// The clip. `image` is Float32Array [height * width * 3] in 0..1; outlines are taken when it is made, poses when a frame
// is asked for, so that moving an object costs no new fill.
export class Composite {
  constructor(image, width, height, objects, hole = "fill") {
    this.width = width;
    this.height = height;
    const covers = objects.map((object) =>
      coverage(object.polygon.map((point) => toPixels(point, width, height)), width, height));
    this.sources = covers.map((cover) => cut(image, width, cover));
    this.background = image;
    if (hole === "fill" && objects.length) {
      const known = new Float32Array(width * height).fill(1);
      for (const { alpha, left, top, columns, rows } of covers)
        for (let y = 0; y < rows; y++)
          for (let x = 0; x < columns; x++)
            if (alpha[y * columns + x] > 0) known[(top + y) * width + left + x] = 0;
      this.background = fillHoles(image, known, width, height);
    }
  }

  // Float32Array [height * width * 3] of one frame; `objects` are those given above, with their keys as they are now.
  frame(objects, frame) {
    const out = this.background.slice();
    objects.forEach((object, index) => this.#lay(out, this.sources[index], object, poseAt(object, frame)));
    return out;
  }

  // The same as bytes [height * width * 4], into `bytes`. Only what the objects touch is computed.
  frameBytes(objects, frame, bytes) {
    this.backgroundBytes ??= toBytes(this.background);
    this.scratch ??= new Float32Array(this.background.length);
    this.scratch.set(this.background);
    bytes.set(this.backgroundBytes);
    const boxes = objects.map((object, index) => this.#lay(this.scratch, this.sources[index], object, poseAt(object, frame)));
    for (const [x0, y0, x1, y1] of boxes)
      for (let y = y0; y < y1; y++)
        for (let i = (y * this.width + x0) * 4, j = (y * this.width + x0) * 3, end = (y * this.width + x1) * 4; i < end; i += 4) {
          bytes[i] = this.scratch[j++] * 255;
          bytes[i + 1] = this.scratch[j++] * 255;
          bytes[i + 2] = this.scratch[j++] * 255;
        }
    return bytes;
  }

  // Lays an object over `out`; returns the box of pixels it may have touched.
  #lay(out, source, object, pose) {
    if (!source.columns || !source.rows) return [0, 0, 0, 0];
    const { left, top, columns, rows, colour } = source;
    const forth = affineOf(object, pose, this.width, this.height);
    const rigid = forth.a === 1 && forth.b === 0;
    const near = (value) => (rigid && Math.abs(value - Math.round(value)) < WHOLE ? Math.round(value) : value);
    if (near(forth.x) === Math.round(forth.x) && near(forth.y) === Math.round(forth.y)) {
      forth.x = near(forth.x);
      forth.y = near(forth.y);
    }
    const corners = [left, left + columns - 1].flatMap((x) =>
      [top, top + rows - 1].map((y) => apply(forth, [x, y])));
    const box = bounds(corners);
    const x0 = Math.max(Math.floor(box[0]), 0), x1 = Math.min(Math.ceil(box[2]) + 1, this.width);
    const y0 = Math.max(Math.floor(box[1]), 0), y1 = Math.min(Math.ceil(box[3]) + 1, this.height);
    const back = inverse(forth), stride = columns * 4;
    for (let y = y0; y < y1; y++)
      for (let x = x0; x < x1; x++) {
        const u = back.a * x + back.b * y + back.x - left, v = back.c * x + back.d * y + back.y - top;
        const column = Math.floor(u), row = Math.floor(v);
        // The source's rim is zeros, and outside it is nothing.
        if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
        const fx = u - column, fy = v - row, i = row * stride + column * 4;
        const right = column + 1 < columns ? 4 : 0, below = row + 1 < rows ? stride : 0;
        const a = (1 - fx) * (1 - fy), b = fx * (1 - fy), c = (1 - fx) * fy, d = fx * fy;
        const alpha = a * colour[i + 3] + b * colour[i + right + 3] + c * colour[i + below + 3] + d * colour[i + right + below + 3];
        if (!(alpha > 0)) continue;
        const target = (y * this.width + x) * 3;
        for (let k = 0; k < 3; k++) {
          const laid = a * colour[i + k] + b * colour[i + right + k] + c * colour[i + below + k] + d * colour[i + right + below + k];
          out[target + k] = alpha >= 1 ? laid : out[target + k] + (laid - alpha * out[target + k]);
        }
      }
    return [x0, y0, Math.max(x1, x0), Math.max(y1, y0)];
  }
}

// colour * alpha and alpha inside a coverage's box, four numbers a pixel, with a rim of zeros.
function cut(image, width, { alpha, left, top, columns, rows }) {
  const stride = columns + 2;
  const colour = new Float32Array(stride * (rows + 2) * 4);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      const share = alpha[y * columns + x], to = ((y + 1) * stride + x + 1) * 4, from = ((top + y) * width + left + x) * 3;
      for (let k = 0; k < 3; k++) colour[to + k] = image[from + k] * share;
      colour[to + 3] = share;
    }
  const empty = !columns || !rows;
  return { colour, left: left - 1, top: top - 1, columns: empty ? 0 : stride, rows: empty ? 0 : rows + 2 };
}

export function fromBytes(bytes) {
  const image = new Float32Array((bytes.length / 4) * 3);
  for (let i = 0, j = 0; i < bytes.length; i += 4) {
    image[j++] = bytes[i] / 255;
    image[j++] = bytes[i + 1] / 255;
    image[j++] = bytes[i + 2] / 255;
  }
  return image;
}

export function toBytes(image, bytes = new Uint8ClampedArray((image.length / 3) * 4)) {
  for (let i = 0, j = 0; j < image.length; i += 4) {
    bytes[i] = image[j++] * 255;
    bytes[i + 1] = image[j++] * 255;
    bytes[i + 2] = image[j++] * 255;
    bytes[i + 3] = 255;
  }
  return bytes;
}
