// The keys of the Light Source editor. `hands` is the editor's LightSourceHands.

// Without and with Shift: degrees, factors, pixels of the picture; of intensity one step.
const STEPS = { turn: [5, 1], grow: [1.05, 1.01], move: [1, 10], power: 0.1 };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const KEY_WORDS =
  "L adds a light from a side, P a point light. Arrow keys move the selected point light by a pixel, with Shift by " +
  "ten, and turn a side light by five degrees, with Shift by one. W and S make a point light larger and smaller, " +
  "square brackets a light darker and brighter. Page Up and Page Down choose another light, Delete removes it. B " +
  "shows or hides the picture behind. In a clip Space plays, comma and full stop step through frames, K sets or " +
  "deletes a key.";

// Returns whether the key was used.
export function lightKey(hands, event, onCanvas) {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) return key === "d" ? (hands.duplicate(), true) : false;
  if (event.altKey) return false;
  if (key === "l") return (hands.addSide(), true);
  if (key === "p") return (hands.addPoint(), true);
  if (key === "b") return ((hands.backdrop = !hands.backdrop), true);
  if (key === "delete" || key === "backspace") return (hands.remove(), true);
  const isButton = !onCanvas && (key === " " || key === "enter");
  if (!isButton && hands.moving && hands.timeline.key(event)) return true;
  if (!onCanvas) return false;
  if (key === "pageup" || key === "pagedown") return (selectNext(hands, key === "pageup" ? -1 : 1), true);
  return Boolean(hands.current) && changeLight(hands, event);
}

function changeLight(hands, event) {
  const key = event.key.toLowerCase(),
    now = hands.at(hands.selected),
    fine = event.shiftKey ? 1 : 0,
    power = { "[": -1, "]": 1 },
    grow = { s: -1, w: 1 };
  if (key in power) return (hands.set({ intensity: now.intensity + power[key] * STEPS.power }), true);
  if (event.key in MOVES) return (nudge(hands, now, MOVES[event.key], fine), true);
  if (key in grow && hands.current.kind === "point")
    return (hands.set({ radius: now.radius * STEPS.grow[fine] ** grow[key] }), true);
  return false;
}

function nudge(hands, now, [across, down], fine) {
  if (hands.current.kind === "side") {
    const angle = now.angle + (across + down) * STEPS.turn[fine];
    return hands.set({ angle: hands.turned(hands.selected, angle) });
  }
  const { width, height } = hands.editor.view.picture,
    pixels = STEPS.move[fine];
  hands.set({ x: now.x + (across * pixels) / width, y: now.y + (down * pixels) / height });
}

function selectNext(hands, direction) {
  const count = hands.lights.length;
  if (count) hands.select(hands.current ? (hands.selected + direction + count) % count : 0);
}
