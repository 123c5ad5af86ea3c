// The keys of the Cut and Drag editor. `hands` is the editor's CutAndDragHands.

import { poseAt } from "./drag_motion.mjs";
import { setPoint } from "./motion_edits.mjs";

// Without and with Shift: degrees, factors, pixels of the picture.
const STEPS = { turn: [5, 1], grow: [1.05, 1.01], move: [1, 10] };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const KEY_WORDS =
  "V selects, A edits points, P draws a polygon, L a lasso. Arrow keys move the selected part by a pixel, with Shift " +
  "by ten; Q and E turn it, W and S make it larger and smaller; Page Up and Page Down choose another part or " +
  "another point. Space plays, comma and full stop step through frames, K sets or deletes a key. In the polygon tool " +
  "arrow keys move a cross, Space sets a point, Enter closes the outline.";

// Returns whether the key was used.
export function motionKey(hands, event, onCanvas) {
  const key = event.key.toLowerCase(),
    tools = { v: "select", a: "points", p: "polygon", l: "lasso" };
  const orders = { "[": -1, "]": 1 },
    fine = event.shiftKey ? 1 : 0;
  if (event.ctrlKey || event.metaKey) return key === "d" ? (hands.duplicate(), true) : false;
  if (event.altKey) return false;
  if (hands.tool === "polygon" && onCanvas && hands.outline.key(event)) return true;
  if (key in tools) return (hands.use(tools[key]), true);
  if (key === "o") return ((hands.onion = !hands.onion), true);
  if (key in orders) return (hands.reorder(orders[key]), true);
  if (key === "f2" && hands.current) return (hands.list.rename(hands.selected), true);
  if (key === "delete" || key === "backspace") return (hands.remove(), true);
  const isButton = !onCanvas && (key === " " || key === "enter");
  if (!isButton && hands.timeline.key(event)) return true;
  if (!onCanvas) return false;
  if (key === "pageup" || key === "pagedown") return (selectNext(hands, key === "pageup" ? 1 : -1), true);
  if (!hands.current) return false;
  if (event.key in MOVES) return (nudge(hands, MOVES[event.key], STEPS.move[fine]), true);
  const pose = poseAt(hands.current, hands.frame),
    turn = { q: -1, e: 1 },
    grow = { s: -1, w: 1 };
  if (key in turn) return (hands.setPose({ angle: pose.angle + turn[key] * STEPS.turn[fine] }), true);
  if (key in grow) return (hands.setPose({ scale: pose.scale * STEPS.grow[fine] ** grow[key] }), true);
  return false;
}

function nudge(hands, direction, pixels) {
  const { width, height } = hands.editor.view.picture,
    across = (direction[0] * pixels) / width,
    down = (direction[1] * pixels) / height;
  if (hands.tool === "points") {
    if (hands.point === null) return;
    const [x, y] = hands.current.polygon[hands.point];
    hands.change(setPoint(hands.current, hands.point, [x + across, y + down]));
    return hands.editor.commit();
  }
  const { x, y } = poseAt(hands.current, hands.frame);
  hands.setPose({ x: x + across, y: y + down });
}

function selectNext(hands, direction) {
  if (hands.tool === "points") {
    const count = hands.current.polygon.length;
    hands.point = ((hands.point ?? -direction) + direction + count) % count;
    return;
  }
  const at = hands.objects.findIndex((object) => object.id === hands.selected),
    count = hands.objects.length;
  if (count) hands.selected = hands.objects[at < 0 ? 0 : (at + direction + count) % count].id;
}
