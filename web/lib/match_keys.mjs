// The keys of the Match Points editor. `hands` is the editor's MatchPointsHands.

const STEPS = [1, 10]; // pixels of the picture, without and with Shift
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const KEY_WORDS =
  "N adds a pair in the middle of both views, or the missing point of an unfinished pair. Page Up and Page Down choose " +
  "another pair, R its point in the reference, T its point in the target; arrow keys move that point by a pixel, with " +
  "Shift by ten. Delete removes the pair. L shows or hides the lines. With Control the arrow keys move the view.";

// Returns whether the key was used.
export function matchKey(hands, event, onCanvas) {
  const key = event.key.toLowerCase(),
    sides = { r: "reference", t: "target" };
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (key === "n") return (hands.addInTheMiddle(), true);
  if (key === "l") return ((hands.lines = !hands.lines), true);
  if (key === "delete" || key === "backspace") return (hands.remove(), true);
  if (key in sides) return (hands.chooseSide(sides[key]), true);
  if (!onCanvas) return false;
  if (key === "pageup" || key === "pagedown") return (selectNext(hands, key === "pageup" ? -1 : 1), true);
  if (event.key in MOVES) return (nudge(hands, MOVES[event.key], STEPS[event.shiftKey ? 1 : 0]), true);
  return false;
}

function nudge(hands, [across, down], pixels) {
  const point = hands.current?.[hands.chosenSide];
  if (!point) return;
  const { width, height } = hands.pane().view.picture;
  hands.set(hands.chosenSide, [point[0] + (across * pixels) / width, point[1] + (down * pixels) / height]);
}

function selectNext(hands, direction) {
  const count = hands.points.length;
  if (count) hands.select(hands.current ? (hands.selected + direction + count) % count : direction > 0 ? 0 : count - 1);
}
