// What the Cut and Drag editor does to a motion: every function returns a new object and leaves the old one as it was,
// so that the preview sees by identity what changed. Poses and points are in fractions of the picture.

import {
  affineOf,
  apply,
  inverse,
  LONGEST_NAME,
  MOST_OBJECTS,
  MOST_POINTS,
  pivotOf,
  poseAt,
  REST,
  toFractions,
  toPixels,
  WAYS,
} from "./drag_motion.mjs";

// As kernels/drag_motion.py allows them.
const RANGES = { x: [-100, 100], y: [-100, 100], angle: [-36000, 36000], scale: [0.001, 1000] };
const POINTS = [-1, 2];
const PIVOTS = [-10, 10];
const POINT_DIGITS = 5;
const POSE_DIGITS = { x: 9, y: 9, angle: 4, scale: 6 };
const TWIN_SHIFT = 0.03;

const rounded = (value, digits) => Number(value.toFixed(digits)) + 0; // + 0: never -0
const within = (value, [low, high]) => Math.min(Math.max(value, low), high);

export function cleanPoint(point, range = POINTS) {
  return point.map((value) => rounded(within(value, range), POINT_DIGITS));
}

export function cleanPose(pose) {
  const clean = {};
  for (const [field, rest] of Object.entries(REST)) {
    const value = Number.isFinite(pose[field]) ? pose[field] : rest;
    clean[field] = rounded(within(value, RANGES[field]), POSE_DIGITS[field]);
  }
  return clean;
}

// The object with a pose at a frame: its key there is changed, or one is made. The first key of an object that has none
// comes with one of where it rested, at frame 0.
export function setPose(object, frame, pose) {
  const keys = object.keys ?? [],
    clean = cleanPose(pose),
    at = keys.findIndex((key) => key.frame === frame);
  if (at >= 0) return { ...object, keys: keys.with(at, { ...keys[at], ...clean }) };
  const first = !keys.length && frame > 0 ? [{ frame: 0, ...REST, way: WAYS[0] }] : [];
  const made = { frame, ...clean, way: WAYS[0] };
  return { ...object, keys: [...first, ...keys, made].sort((a, b) => a.frame - b.frame) };
}

// A key where there is none, with the pose that the object has there.
export function addKey(object, frame) {
  if (object.keys.some((key) => key.frame === frame)) return object;
  const made = { frame, ...cleanPose(poseAt(object, frame)), way: WAYS[0] };
  // Splitting a way keeps what can be kept of it.
  const next = object.keys.find((key) => key.frame > frame);
  if (next?.way === "hold" && object.keys.some((key) => key.frame < frame)) made.way = "hold";
  return { ...object, keys: [...object.keys, made].sort((a, b) => a.frame - b.frame) };
}

export function removeKey(object, frame) {
  return { ...object, keys: object.keys.filter((key) => key.frame !== frame) };
}

export function moveKey(object, index, frame) {
  return { ...object, keys: object.keys.with(index, { ...object.keys[index], frame }) };
}

export function setWay(object, frame, way) {
  return { ...object, keys: object.keys.map((key) => (key.frame === frame ? { ...key, way } : key)) };
}

export function setPoint(object, index, point) {
  return keepPivot(object, object.polygon.with(index, cleanPoint(point)));
}

// A new point on the edge that begins at `index`.
export function addPoint(object, index, point) {
  if (object.polygon.length >= MOST_POINTS) return object;
  return keepPivot(object, object.polygon.toSpliced(index + 1, 0, cleanPoint(point)));
}

export function removePoint(object, index) {
  return object.polygon.length > 3 ? keepPivot(object, object.polygon.toSpliced(index, 1)) : object;
}

// Reshaping must not move what is animated: an object with keys gets its pivot written down.
function keepPivot(object, polygon) {
  return object.keys.length
    ? { ...object, pivot: cleanPoint(pivotOf(object), PIVOTS), polygon }
    : { ...object, polygon };
}

// Another pivot, with the poses of all keys changed so that the object is where it was at each of them.
export function setPivot(object, pivot, width, height) {
  const moved = { ...object, pivot: cleanPoint(pivot, PIVOTS) };
  const to = toPixels(moved.pivot, width, height);
  const keys = object.keys.map((key) => {
    const before = apply(affineOf(object, key, width, height), to),
      after = apply(affineOf(moved, key, width, height), to);
    return {
      ...key,
      ...cleanPose({ ...key, x: key.x + (before[0] - after[0]) / width, y: key.y + (before[1] - after[1]) / height }),
    };
  });
  return { ...moved, keys };
}

// The place in the first picture of what is seen at `point` at a frame.
export function sourcePoint(object, frame, point, width, height) {
  const back = inverse(affineOf(object, poseAt(object, frame), width, height));
  return toFractions(apply(back, toPixels(point, width, height)), width, height);
}

// Where a point of the first picture is seen at a frame.
export function shownPoint(object, frame, point, width, height) {
  const forth = affineOf(object, poseAt(object, frame), width, height);
  return toFractions(apply(forth, toPixels(point, width, height)), width, height);
}

export function freshId(objects) {
  const taken = new Set(objects.map((object) => object.id));
  for (let number = objects.length + 1; ; number++) if (!taken.has(`part-${number}`)) return `part-${number}`;
}

export function freshName(objects, wanted = "") {
  const taken = new Set(objects.map((object) => object.name)),
    stem = wanted.replace(/ \d+$/, "").slice(0, LONGEST_NAME - 5);
  for (let number = wanted ? 2 : 1; ; number++) {
    const name = `${stem || "Part"} ${number}`;
    if (!taken.has(name)) return name;
  }
}

// The motion with one more object in front, or null where there are as many as can be.
export function addObject(motion, polygon) {
  if (motion.objects.length >= MOST_OBJECTS) return null;
  const made = {
    id: freshId(motion.objects),
    name: freshName(motion.objects),
    polygon: polygon.map((point) => cleanPoint(point)),
    keys: [],
  };
  return { ...motion, objects: [...motion.objects, made] };
}

// The motion with a copy of an object in front, a little aside, or null where there are as many as can be.
export function addCopy(motion, object) {
  if (motion.objects.length >= MOST_OBJECTS) return null;
  const keys = object.keys.length ? object.keys : [{ frame: 0, ...REST, way: WAYS[0] }];
  const aside = keys.map((key) => ({ ...key, ...cleanPose({ ...key, x: key.x + TWIN_SHIFT, y: key.y + TWIN_SHIFT }) }));
  const made = {
    ...structuredClone(object),
    id: freshId(motion.objects),
    name: freshName(motion.objects, object.name || "Part"),
    keys: aside,
  };
  return { ...motion, objects: [...motion.objects, made] };
}

export function replaceObject(motion, object) {
  return { ...motion, objects: motion.objects.map((each) => (each.id === object.id ? object : each)) };
}

export function removeObject(motion, id) {
  return { ...motion, objects: motion.objects.filter((each) => each.id !== id) };
}

// Steps > 0: towards the front.
export function reorder(motion, id, steps) {
  const from = motion.objects.findIndex((each) => each.id === id);
  const to = within(from + steps, [0, motion.objects.length - 1]);
  if (from < 0 || to === from) return motion;
  const objects = motion.objects.toSpliced(from, 1).toSpliced(to, 0, motion.objects[from]);
  return { ...motion, objects };
}
