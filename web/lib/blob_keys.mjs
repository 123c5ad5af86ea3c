// The keys of the Blob Layout editor. `hands` is the editor's BlobLayoutHands.

// Without and with Shift: degrees, factors, pixels of the picture.
const STEPS = { turn: [5, 1], grow: [1.05, 1.01], move: [1, 10] };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const KEY_WORDS =
  "D draws a blob, also over others, N adds one in the middle, Enter writes the selected one's caption. Arrow keys move " +
  "it by a pixel, with Shift by ten; Q and E turn it, W and S make it larger and smaller, with Shift finer. Page Up and " +
  "Page Down move it up and down in the order, with Shift to the ends; square brackets choose another blob, Delete " +
  "removes it. H hides or shows it, B the picture behind, O its key frames nearby. In a clip Space plays, comma and full " +
  "stop step through frames, K sets or deletes a key, T a caption of its own at the frame.";

// Returns whether the key was used.
export function blobKey(hands, event, onCanvas) {
  const key = event.key.toLowerCase(),
    fine = event.shiftKey ? 1 : 0;
  const orders = { pageup: fine ? Infinity : 1, pagedown: fine ? -Infinity : -1 };
  if (event.ctrlKey || event.metaKey) return key === "d" ? (hands.duplicate(), true) : false;
  if (event.altKey) return false;
  if (key === "d") return (hands.use(hands.tool === "ellipse" ? "select" : "ellipse"), true);
  if (key === "v") return (hands.use("select"), true);
  if (key === "n") return (hands.addInTheMiddle(), true);
  if (key === "b") return ((hands.backdrop = !hands.backdrop), true);
  if (key === "o") return ((hands.onion = !hands.onion), true);
  if (key === "h") return (hands.toggleThere(), true);
  if (key === "t") return (hands.toggleCaption(), true);
  if (key === "delete" || key === "backspace") return (hands.remove(), true);
  if (key === "f2") return (hands.writeCaption(), true);
  const isButton = !onCanvas && (key === " " || key === "enter");
  if (!isButton && hands.moving && hands.timeline.key(event)) return true;
  if (!onCanvas) return false;
  if (key === "enter") return (hands.writeCaption(), true);
  if (key in orders) return (hands.reorder(orders[key]), true);
  if (key === "[" || key === "]") return (selectNext(hands, key === "]" ? 1 : -1), true);
  return Boolean(hands.current) && changeBlob(hands, event, key, fine);
}

function changeBlob(hands, event, key, fine) {
  const now = hands.at(hands.current),
    turn = { q: -1, e: 1 },
    grow = { s: -1, w: 1 };
  if (key in turn) return (hands.set({ angle: now.angle + turn[key] * STEPS.turn[fine] }), true);
  if (key in grow) {
    const factor = STEPS.grow[fine] ** grow[key];
    return (hands.set({ a: now.a * factor, b: now.b * factor }), true);
  }
  if (!(event.key in MOVES)) return false;
  const { width, height } = hands.editor.view.picture,
    [across, down] = MOVES[event.key],
    pixels = STEPS.move[fine];
  hands.set({ x: now.x + (across * pixels) / width, y: now.y + (down * pixels) / height });
  return true;
}

function selectNext(hands, direction) {
  const at = hands.blobs.indexOf(hands.current),
    count = hands.blobs.length;
  if (count) hands.select(hands.blobs[at < 0 ? (direction > 0 ? 0 : count - 1) : (at + direction + count) % count].id);
}
