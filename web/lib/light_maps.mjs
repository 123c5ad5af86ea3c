// Lights and the pictures of their light, as kernels/light_source.py reads and computes them: pure functions, so that the
// preview shows what the node makes. Places are in fractions of the picture, angles in degrees, 0 = from the right,
// clockwise on the screen.

import { travel, WAYS } from "./ways.mjs";

export const VERSION = 1;
export const MOST_LIGHTS = 100;
export const STYLES = { fc: [0, 255], fbc: [32, 224] }; // 8-bit levels: dark, bright

// Numbers of a light: lowest, highest, default, digits that are written.
const SHARED = { intensity: [0, 100, 1, 3] };
export const RANGES = {
  side: { angle: [-36000, 36000, 180, 2], ...SHARED },
  point: {
    x: [-10, 10, 0.5, 5],
    y: [-10, 10, 0.5, 5],
    radius: [0.001, 10, 0.25, 5],
    falloff: [0.1, 10, 1, 3],
    ...SHARED,
  },
};
export const WHITE = "#ffffff";
const HEX = /^#[0-9a-f]{6}$/i;

// Reads the widget's text. Never throws: `problem` says in a sentence what is wrong, `locked` that it must not be
// overwritten. Fields it does not know are kept; lights and keys get all their own fields.
export function parseLights(text) {
  const refuse = (problem, locked = false) => ({ state: { version: VERSION, lights: [] }, problem, locked });
  if (!String(text ?? "").trim()) return refuse("");
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    return refuse("The lights' text cannot be read; the first change replaces it.");
  }
  if (content === null || typeof content !== "object" || Array.isArray(content))
    return refuse("The lights' text holds no lights; the first change replaces it.");
  if (content.version > VERSION)
    return refuse("A newer version of ComfyUI-PaperNodes made these lights. Update the pack.", true);
  const listed = Array.isArray(content.lights) ? content.lights : [];
  const lights = listed
    .filter((light) => Object.hasOwn(RANGES, light?.kind))
    .slice(0, MOST_LIGHTS)
    .map(readLight);
  const left = listed.length - lights.length;
  const problem = left ? `${left} light${left > 1 ? "s" : ""} could not be read and will be left out.` : "";
  return { state: { ...content, version: VERSION, lights }, problem, locked: false };
}

function readLight(entry) {
  const light = fields(entry.kind, entry, {});
  const found = new Map(); // of two keys at one frame the later one counts
  for (const key of Array.isArray(entry.keys) ? entry.keys : [])
    if (Number.isInteger(key?.frame) && key.frame >= 0)
      found.set(key.frame, { ...fields(light.kind, key, light), way: WAYS.includes(key.way) ? key.way : WAYS[0] });
  return { ...light, keys: [...found.values()].sort((a, b) => a.frame - b.frame) };
}

// An entry with every number and the colour, as the node takes them; what it lacks is as in `light`, else the default.
function fields(kind, entry, light) {
  const full = { ...entry };
  for (const [name, [, , start]] of Object.entries(RANGES[kind]))
    full[name] = clean(kind, name, Number.isFinite(entry[name]) ? entry[name] : (light[name] ?? start));
  full.colour = isColour(entry.colour) ? entry.colour : (light.colour ?? WHITE);
  return full;
}

// A light's number in its range and with no more digits than matter.
export function clean(kind, name, value) {
  const [low, high, , digits] = RANGES[kind][name];
  return Number(Math.min(Math.max(value, low), high).toFixed(digits)) + 0; // + 0: never -0
}

function isColour(colour) {
  if (typeof colour === "string") return HEX.test(colour);
  return Array.isArray(colour) && colour.length === 3 && colour.every((part) => part >= 0 && part <= 1);
}

// [red, green, blue] in 0..1.
export function channels(colour) {
  if (typeof colour !== "string") return colour;
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16) / 255);
}

export function toHex(colour) {
  const byte = (part) => Math.round(part * 255).toString(16).padStart(2, "0");
  return `#${channels(colour).map(byte).join("")}`;
}

// What a light is like at a frame: its numbers, and `colour` as [red, green, blue].
export function lightAt(light, frame) {
  const { keys } = light;
  let index = keys.length - 1;
  while (index > 0 && keys[index].frame > frame) index--;
  const from = keys[index] ?? light,
    to = keys[index + 1];
  const within = to && frame > from.frame;
  const part = within ? travel((frame - from.frame) / (to.frame - from.frame), to.way) : 0;
  const between = (a, b) => (part ? a + (b - a) * part : a);
  const found = {};
  for (const name of Object.keys(RANGES[light.kind])) found[name] = between(from[name], to?.[name]);
  const goal = channels((to ?? from).colour);
  found.colour = channels(from.colour).map((value, channel) => between(value, goal[channel]));
  return found;
}

// Towards a side light: [x, y] of length 1, exact at quarter turns.
export function direction(angle) {
  const quarters = Math.floor(angle / 90),
    rest = ((angle - quarters * 90) * Math.PI) / 180;
  const cos = Math.cos(rest),
    sin = Math.sin(rest);
  return [
    [cos, sin],
    [-sin, cos],
    [-cos, -sin],
    [sin, -cos],
  ][((quarters % 4) + 4) % 4];
}

// The light of a frame as bytes [height * width * 4], into `bytes`: the kernel's operations in the kernel's order.
export function drawLights(lights, frame, width, height, style, bytes) {
  const [dark, bright] = STYLES[style] ?? STYLES.fc;
  const levels = new Float64Array(width * height * 3).fill(dark);
  for (const light of lights) {
    const { intensity, colour, ...now } = lightAt(light, frame);
    const drawn = light.kind === "side" ? side : point;
    const given = drawn(now, width, height, bright - dark);
    for (let y = 0, at = 0; y < height; y++)
      for (let x = 0; x < width; x++, at += 3) {
        const level = given(x, y) * intensity;
        levels[at] += level * colour[0];
        levels[at + 1] += level * colour[1];
        levels[at + 2] += level * colour[2];
      }
  }
  for (let from = 0, to = 0; from < levels.length; from += 3, to += 4) {
    for (let channel = 0; channel < 3; channel++)
      bytes[to + channel] = Math.floor(Math.min(levels[from + channel], bright));
    bytes[to + 3] = 255;
  }
  return bytes;
}

// What a side light gives a pixel: evenly from `span`, nearest to it, to 0.
function side({ angle }, width, height, span) {
  const [towardsX, towardsY] = direction(angle);
  const middleX = (width - 1) / 2,
    middleY = (height - 1) / 2;
  const reach = middleX * Math.abs(towardsX) + middleY * Math.abs(towardsY);
  const slope = reach > 0 ? -span / (2 * reach) : 0;
  return (x, y) => Math.max(span + (reach - ((x - middleX) * towardsX + (y - middleY) * towardsY)) * slope, 0);
}

function point({ x: atX, y: atY, radius, falloff }, width, height, span) {
  const reach = (radius * Math.min(width, height)) ** 2,
    left = 0.5 - atX * width,
    top = 0.5 - atY * height;
  const far = (x, y) => 1 + ((x + left) ** 2 + (y + top) ** 2) / reach;
  return falloff === 1 ? (x, y) => span / far(x, y) : (x, y) => span * far(x, y) ** -falloff;
}
