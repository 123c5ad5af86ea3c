// What the Blob Layout editor does to its blobs: every function returns something new and leaves the old as it was.

import { captionAt, clean, ellipseAt, isThere, LONGEST_CAPTION, MOST_BLOBS, PATHS, RANGES, WEIGHT } from "./blob_layout.mjs";
import { WAYS } from "./ways.mjs";

const ASIDE = 0.04;

export function replaceBlob(state, blob) {
  return { ...state, blobs: state.blobs.map((each) => (each.id === blob.id ? blob : each)) };
}

export function removeBlob(state, id) {
  return { ...state, blobs: state.blobs.filter((blob) => blob.id !== id) };
}

// The blobs with one more on top, under an id of its own, or null where there are as many as can stand in a layout.
export function addBlob(state, blob) {
  if (state.blobs.length >= MOST_BLOBS) return null;
  const taken = new Set(state.blobs.map(({ id }) => id));
  let number = 1;
  while (taken.has(String(number))) number++;
  const { id: _id, ...rest } = blob;
  return { ...state, blobs: [...state.blobs, { id: String(number), ...rest }] };
}

// `steps` up in the order, or down; further than the ends is at the end.
export function reorder(state, id, steps) {
  const at = state.blobs.findIndex((blob) => blob.id === id);
  const to = Math.min(Math.max(at + steps, 0), state.blobs.length - 1);
  const rest = state.blobs.toSpliced(at, 1);
  return { ...state, blobs: rest.toSpliced(to, 0, state.blobs[at]) };
}

export function newBlob(numbers) {
  const blob = { caption: "", weight: WEIGHT[2], path: PATHS[0], there: true, keys: [], captions: [] };
  return { ...blob, ...cleaned({ x: 0.5, y: 0.5, a: 0.2, b: 0.2, angle: 0, ...numbers }) };
}

// A copy, a little aside, with all its keys.
export function copyOf(blob) {
  const moved = (entry) => ({ ...entry, ...cleaned({ x: entry.x + ASIDE, y: entry.y + ASIDE }) });
  const copy = structuredClone(blob);
  return { ...moved(copy), keys: copy.keys.map(moved) };
}

// Numbers as they are written: an angle from above -90 to 90, which is every ellipse once.
function cleaned(numbers) {
  const made = {};
  for (const [name, value] of Object.entries(numbers))
    made[name] = clean(RANGES[name], name === "angle" ? value - 180 * Math.ceil((value - 90) / 180) : value);
  return made;
}

// The blob with another place, size, angle or presence. One without keys is changed for the whole clip, one with keys at
// the frame: its key there, or a new one.
export function change(blob, frame, { there, ...numbers }) {
  const made = cleaned(numbers);
  if (there !== undefined) made.there = there;
  if (!blob.keys.length) return { ...blob, ...made };
  const keyed = addKey(blob, frame),
    at = keyed.keys.findIndex((key) => key.frame === frame);
  return { ...keyed, keys: keyed.keys.with(at, { ...keyed.keys[at], ...made }) };
}

export function setWeight(blob, weight) {
  return { ...blob, weight: clean(WEIGHT, weight) };
}

// A key where there is none, with the ellipse that is there.
export function addKey(blob, frame) {
  if (blob.keys.some((key) => key.frame === frame)) return blob;
  const made = { frame, ...cleaned(ellipseAt(blob, frame)) };
  const next = blob.keys.find((key) => key.frame > frame);
  // Splitting a way keeps what can be kept of it.
  made.way = next?.way === "hold" && blob.keys.some((key) => key.frame < frame) ? "hold" : WAYS[0];
  made.there = isThere(blob, frame);
  return { ...blob, keys: [...blob.keys, made].sort((a, b) => a.frame - b.frame) };
}

// Without its last key a blob stays as that key had it.
export function removeKey(blob, frame) {
  const keys = blob.keys.filter((key) => key.frame !== frame);
  if (keys.length || !blob.keys.length) return { ...blob, keys };
  const [last] = blob.keys,
    made = { there: last.there };
  for (const name of Object.keys(RANGES)) made[name] = last[name];
  return { ...blob, ...made, keys };
}

export function moveKey(blob, index, frame) {
  return { ...blob, keys: blob.keys.with(index, { ...blob.keys[index], frame }) };
}

export function setWay(blob, frame, way) {
  return { ...blob, keys: blob.keys.map((key) => (key.frame === frame ? { ...key, way } : key)) };
}

// The blob with another caption: for the whole clip, or where captions change in it at the frame.
export function setCaption(blob, frame, text) {
  const caption = text.slice(0, LONGEST_CAPTION);
  if (!blob.captions.length) return { ...blob, caption };
  const keyed = addCaption(blob, frame),
    at = keyed.captions.findIndex((key) => key.frame === frame);
  return { ...keyed, captions: keyed.captions.with(at, { ...keyed.captions[at], text: caption }) };
}

// A caption of its own at a frame; the first one comes with what the blob was before, at frame 0.
export function addCaption(blob, frame) {
  if (blob.captions.some((key) => key.frame === frame)) return blob;
  const text = captionAt(blob, frame);
  const first = !blob.captions.length && frame > 0 ? [{ frame: 0, text }] : [];
  const captions = [...first, ...blob.captions, { frame, text }];
  return { ...blob, captions: captions.sort((a, b) => a.frame - b.frame) };
}

// Of a single one that is left, its text holds throughout.
export function removeCaption(blob, frame) {
  const captions = blob.captions.filter((key) => key.frame !== frame);
  if (captions.length > 1 || captions.length === blob.captions.length) return { ...blob, captions };
  return { ...blob, caption: (captions[0] ?? blob.captions[0]).text, captions: [] };
}
