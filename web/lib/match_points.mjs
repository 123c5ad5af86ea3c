// The text of the Match Points editor, as kernels/matched_points.py reads it, and what is done to its pairs: every
// function returns something new. A pair whose partner is still to come lacks one side; the node refuses it.

export const VERSION = 1;
export const MOST_PAIRS = 100;
export const SIDES = ["reference", "target"];

const DIGITS = 6;
const TURN = 137.508; // degrees of the circle of hues from a number to the next, as in kernels/match_picture.py

export function pairColour(index) {
  return `hsl(${((index * TURN) % 360).toFixed(2)} 85% 62%)`;
}

export function otherSide(side) {
  return SIDES[1 - SIDES.indexOf(side)];
}

// The text -> {state, problem, locked}. What is not known is kept.
export function parsePoints(text) {
  const refuse = (problem, locked = false) => ({ state: { version: VERSION, points: [] }, problem, locked });
  if (!String(text ?? "").trim()) return refuse("");
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    return refuse("The points' text cannot be read; the first change replaces it.");
  }
  if (content === null || typeof content !== "object" || Array.isArray(content))
    return refuse("The points' text holds no points; the first change replaces it.");
  if (content.version > VERSION)
    return refuse("A newer version of ComfyUI-PaperNodes made these points. Update the pack.", true);
  const listed = Array.isArray(content.points) ? content.points : [];
  const points = listed.map(readPair).filter(Boolean).slice(0, MOST_PAIRS);
  const left = listed.length - points.length;
  const problem = left ? `${left} pair${left > 1 ? "s" : ""} could not be read and will be left out.` : "";
  return { state: { ...content, version: VERSION, points }, problem, locked: false };
}

function readPair(entry) {
  if (entry === null || typeof entry !== "object" || Array.isArray(entry)) return null;
  const { reference, target, ...pair } = entry;
  if (isPoint(reference)) pair.reference = clean(reference);
  if (isPoint(target)) pair.target = clean(target);
  return SIDES.some((side) => pair[side]) ? pair : null;
}

function isPoint(point) {
  return Array.isArray(point) && point.length === 2 && point.every(Number.isFinite);
}

// A point in its picture, with no more digits than matter.
export function clean(point) {
  return point.map((share) => Number(Math.min(Math.max(share, 0), 1).toFixed(DIGITS)));
}

export function isWhole(pair) {
  return SIDES.every((side) => pair[side]);
}

export function setPoint(state, index, side, point) {
  return { ...state, points: state.points.with(index, { ...state.points[index], [side]: clean(point) }) };
}

// One more pair, of one point or of both; null where there are as many as can be used.
export function addPair(state, pair) {
  if (state.points.length >= MOST_PAIRS) return null;
  const made = {};
  for (const side of SIDES) if (pair[side]) made[side] = clean(pair[side]);
  return { ...state, points: [...state.points, made] };
}

export function removePair(state, index) {
  return { ...state, points: state.points.toSpliced(index, 1) };
}

// Which pair a click in a picture goes on with: the selected one or the first that lacks a point there, else the one
// whose point there waits for its partner and is put elsewhere; -1 where a new pair begins.
export function waitingFor(points, side, selected) {
  const lacks = (pair) => pair && !pair[side];
  if (lacks(points[selected])) return selected;
  const first = points.findIndex(lacks);
  if (first >= 0) return first;
  return points[selected] && !isWhole(points[selected]) ? selected : points.findLastIndex((pair) => !isWhole(pair));
}
