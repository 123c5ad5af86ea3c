// What the Light Source editor does to its lights: every function returns something new and leaves the old as it was.

import { clean, lightAt, MOST_LIGHTS, RANGES, toHex, WHITE } from "./light_maps.mjs";
import { WAYS } from "./ways.mjs";

const SIDES = [180, 0, 270, 90];
const ASIDE = 0.06;
const COPY_TURN = 30;

export function replaceLight(state, index, light) {
  return { ...state, lights: state.lights.with(index, light) };
}

export function removeLight(state, index) {
  return { ...state, lights: state.lights.toSpliced(index, 1) };
}

// The lights with one more, or null where there are as many as can shine.
export function addLight(state, light) {
  return state.lights.length < MOST_LIGHTS ? { ...state, lights: [...state.lights, light] } : null;
}

// A light from a side that has none yet.
export function newSide(lights) {
  const taken = lights.map((light) => light.kind === "side" && ((light.angle % 360) + 360) % 360);
  return { ...fresh("side"), angle: SIDES.find((angle) => !taken.includes(angle)) ?? SIDES[0] };
}

export function newPoint([x, y] = [0.5, 0.5]) {
  return { ...fresh("point"), x: clean("point", "x", x), y: clean("point", "y", y) };
}

function fresh(kind) {
  const light = { kind };
  for (const [name, [, , start]] of Object.entries(RANGES[kind])) light[name] = start;
  return { ...light, colour: WHITE, keys: [] };
}

// A copy, a little aside, with all its keys.
export function copyOf(light) {
  const shift = light.kind === "side" ? { angle: COPY_TURN } : { x: ASIDE, y: ASIDE };
  const moved = (entry) => {
    const at = { ...entry };
    for (const [name, by] of Object.entries(shift)) at[name] = clean(light.kind, name, entry[name] + by);
    return at;
  };
  const copy = structuredClone(light);
  return { ...moved(copy), keys: copy.keys.map(moved) };
}

// The light with some of its numbers, or its colour, changed. One without keys is changed for the whole clip, one with
// keys at the frame: its key there, or a new one.
export function change(light, frame, changes) {
  const made = {};
  for (const [name, value] of Object.entries(changes))
    made[name] = name === "colour" ? value : clean(light.kind, name, value);
  if (!light.keys.length) return { ...light, ...made };
  const keyed = addKey(light, frame),
    at = keyed.keys.findIndex((key) => key.frame === frame);
  return { ...keyed, keys: keyed.keys.with(at, { ...keyed.keys[at], ...made }) };
}

// A key where there is none, with what the light is like there.
export function addKey(light, frame) {
  if (light.keys.some((key) => key.frame === frame)) return light;
  const now = lightAt(light, frame),
    made = { frame };
  for (const name of Object.keys(RANGES[light.kind])) made[name] = clean(light.kind, name, now[name]);
  made.colour = light.keys.length ? toHex(now.colour) : light.colour;
  const next = light.keys.find((key) => key.frame > frame);
  // Splitting a way keeps what can be kept of it.
  made.way = next?.way === "hold" && light.keys.some((key) => key.frame < frame) ? "hold" : WAYS[0];
  return { ...light, keys: [...light.keys, made].sort((a, b) => a.frame - b.frame) };
}

// Without its last key a light stays as that key had it.
export function removeKey(light, frame) {
  const keys = light.keys.filter((key) => key.frame !== frame);
  if (keys.length || !light.keys.length) return { ...light, keys };
  const [{ frame: _frame, way: _way, ...last }] = light.keys;
  return { ...light, ...last, keys };
}

export function moveKey(light, index, frame) {
  return { ...light, keys: light.keys.with(index, { ...light.keys[index], frame }) };
}

export function setWay(light, frame, way) {
  return { ...light, keys: light.keys.map((key) => (key.frame === frame ? { ...key, way } : key)) };
}
