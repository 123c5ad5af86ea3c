// Layouts of blobs as kernels/blob_layout.py reads and computes them: pure functions. x and y are fractions of the
// picture's width and height, half axes a and b fractions of its height, angles degrees, that of a, clockwise.

import { pairColour } from "./match_points.mjs";
import { travel, WAYS } from "./ways.mjs";

export const VERSION = 1;
export const MOST_BLOBS = 100;
export const LONGEST_CAPTION = 2000;
export const PATHS = ["linear", "cubic"];

// Numbers of an ellipse, and a blob's weight: lowest, highest, default, digits that are written.
export const RANGES = {
  x: [-10, 10, 0.5, 5],
  y: [-10, 10, 0.5, 5],
  a: [0.001, 10, 0.2, 5],
  b: [0.001, 10, 0.2, 5],
  angle: [-36000, 36000, 0, 2],
};
export const WEIGHT = [0, 10, 1, 3];
const LONGEST_ID = 100;
const RADIANS = Math.PI / 180;
const COLOUR_BASE = 31;
const COLOUR_RING = 9973;

// Reads the widget's text. Never throws: `problem` says in a sentence what is wrong, `locked` that it must not be
// overwritten. Fields it does not know are kept; blobs and keys get all their own fields.
export function parseBlobs(text) {
  const refuse = (problem, locked = false) => ({ state: { version: VERSION, blobs: [] }, problem, locked });
  if (!String(text ?? "").trim()) return refuse("");
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    return refuse("The layout's text cannot be read; the first change replaces it.");
  }
  if (!isObject(content)) return refuse("The layout's text holds no layout; the first change replaces it.");
  if (content.version > VERSION)
    return refuse("A newer version of ComfyUI-PaperNodes made this layout. Update the pack.", true);
  const listed = Array.isArray(content.blobs) ? content.blobs : [];
  const taken = new Set();
  const blobs = listed
    .filter(isObject)
    .slice(0, MOST_BLOBS)
    .map((entry, index) => readBlob(entry, index, taken));
  const left = listed.length - blobs.length;
  const problem = left ? `${left} blob${left > 1 ? "s" : ""} could not be read and will be left out.` : "";
  return { state: { ...content, version: VERSION, blobs }, problem, locked: false };
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function readBlob(entry, index, taken) {
  const blob = { ...entry, id: ownId(entry.id, index, taken), caption: readText(entry.caption) };
  Object.assign(blob, readEllipse(entry, {}));
  blob.weight = clean(WEIGHT, Number.isFinite(entry.weight) ? entry.weight : WEIGHT[2]);
  blob.path = PATHS.includes(entry.path) ? entry.path : PATHS[0];
  blob.there = typeof entry.there === "boolean" ? entry.there : true;
  blob.keys = inOrder(entry.keys, (key) => ({
    ...key,
    ...readEllipse(key, blob),
    way: WAYS.includes(key.way) ? key.way : WAYS[0],
    there: typeof key.there === "boolean" ? key.there : blob.there,
  }));
  blob.captions = inOrder(entry.captions, (key) => ({ ...key, text: readText(key.text) }));
  return blob;
}

// The id if the node takes it, else the place in the list, made one of its own.
function ownId(id, index, taken) {
  const wanted = Number.isInteger(id) ? String(id) : id;
  let own = typeof wanted === "string" && wanted && wanted.length <= LONGEST_ID ? wanted : String(index + 1);
  while (taken.has(own)) own = `${own.slice(0, LONGEST_ID - 4)}-${index + 1}`;
  taken.add(own);
  return own;
}

function readText(text) {
  return typeof text === "string" ? text.slice(0, LONGEST_CAPTION) : "";
}

function readEllipse(entry, blob) {
  const found = {};
  for (const [name, range] of Object.entries(RANGES))
    found[name] = clean(range, Number.isFinite(entry[name]) ? entry[name] : (blob[name] ?? range[2]));
  return found;
}

// Keys by rising frames; of two at one frame the later one counts.
function inOrder(keys, read) {
  const found = new Map();
  for (const key of Array.isArray(keys) ? keys : [])
    if (Number.isInteger(key?.frame) && key.frame >= 0) found.set(key.frame, read(key));
  return [...found.values()].sort((a, b) => a.frame - b.frame);
}

// A number in its range and with no more digits than matter.
export function clean([low, high, , digits], value) {
  return Number(Math.min(Math.max(value, low), high).toFixed(digits)) + 0; // + 0: never -0
}

// The index of the last key at or before a frame; before the first key, its own.
function holding(keys, frame) {
  let index = keys.length - 1;
  while (index > 0 && keys[index].frame > frame) index--;
  return index;
}

// {x, y, a, b, angle} of a blob at a frame.
export function ellipseAt(blob, frame) {
  const { keys } = blob;
  if (!keys.length) return { x: blob.x, y: blob.y, a: blob.a, b: blob.b, angle: blob.angle };
  const index = holding(keys, frame),
    from = keys[index],
    to = keys[index + 1];
  const within = to && frame > from.frame;
  const part = within ? travel((frame - from.frame) / (to.frame - from.frame), to.way) : 0;
  const rows = rowsOf(keys);
  let [x, y, a, b, turned] = rows[index];
  if (part) {
    const between = blob.path === "cubic" ? cubic(rows, keys, index, part) : straight(rows, index, part);
    [x, y, a, b, turned] = between;
  }
  return { x, y, a, b, angle: turned / RADIANS };
}

// [x, y, a, b, radians] of all keys, each angle within a quarter turn of the one before.
function rowsOf(keys) {
  let turned = 0;
  return keys.map((key, index) => {
    const angle = key.angle * RADIANS;
    if (!index) turned = angle;
    else {
      const step = angle - keys[index - 1].angle * RADIANS;
      turned += step - Math.PI * toEven(step / Math.PI);
    }
    return [key.x, key.y, key.a, key.b, turned];
  });
}

// The nearest whole number, of two the even one, as Python rounds.
function toEven(value) {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

function straight(rows, index, part) {
  return rows[index].map((value, column) => value + (rows[index + 1][column] - value) * part);
}

// Along a cubic Hermite curve whose slope at a key is that from the key before it to the key after it; half axes by
// their logarithms.
function cubic(rows, keys, index, t) {
  const bent = rows.map(([x, y, a, b, turned]) => [x, y, Math.log(a), Math.log(b), turned]);
  const last = rows.length - 1;
  const inner = (at, column) =>
    (bent[at + 1][column] - bent[at - 1][column]) / (keys[at + 1].frame - keys[at - 1].frame);
  const slope = (at, column) => {
    if (at > 0 && at < last) return inner(at, column);
    const near = at ? at - 1 : 1;
    const chord = (bent[near][column] - bent[at][column]) / (keys[near].frame - keys[at].frame);
    return rows.length === 2 ? chord : 2 * chord - inner(near, column);
  };
  const span = keys[index + 1].frame - keys[index].frame;
  const found = bent[index].map(
    (first, column) =>
      (2 * t ** 3 - 3 * t ** 2 + 1) * first +
      (t ** 3 - 2 * t ** 2 + t) * span * slope(index, column) +
      (3 * t ** 2 - 2 * t ** 3) * bent[index + 1][column] +
      (t ** 3 - t ** 2) * span * slope(index + 1, column),
  );
  return [found[0], found[1], Math.exp(found[2]), Math.exp(found[3]), found[4]];
}

// Whether a blob is in the picture at a frame.
export function isThere(blob, frame) {
  return blob.keys.length ? blob.keys[holding(blob.keys, frame)].there : blob.there;
}

// The caption that a person reads at a frame.
export function captionAt(blob, frame) {
  return blob.captions.length ? blob.captions[holding(blob.captions, frame)].text : blob.caption;
}

// The colour of the blob of an id, as kernels/blob_picture.py has it.
export function blobColour(id) {
  let number = 7;
  for (const letter of id) number = (number * COLOUR_BASE + letter.codePointAt(0)) % COLOUR_RING;
  return pairColour(number - 1);
}

// How far a place is from an ellipse's middle, in its half axes: at most 1 inside. `ratio` = width / height.
export function farness({ x, y, a, b, angle }, [atX, atY], ratio) {
  const across = (atX - x) * ratio,
    down = atY - y,
    cos = Math.cos(angle * RADIANS),
    sin = Math.sin(angle * RADIANS);
  return Math.hypot((across * cos + down * sin) / a, (down * cos - across * sin) / b);
}
