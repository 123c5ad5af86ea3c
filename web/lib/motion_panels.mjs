// The panels of the Cut and Drag editor: the list of its parts, the numbers of one's place, the timeline.
// `hands` is the editor's CutAndDragHands.

import { MOST_OBJECTS, poseAt, travel, WAYS } from "./drag_motion.mjs";
import * as edits from "./motion_edits.mjs";
import { NumberFields, ObjectList } from "./object_list.mjs";
import { Timeline } from "./timeline.mjs";

export function sidePanels(hands) {
  const { editor } = hands;
  const has = () => hands.current,
    many = () => hands.objects.length;
  const list = new ObjectList(editor, hands, [
    {
      id: "raise",
      icon: "raise",
      label: "Bring forward",
      keys: "]",
      run: () => hands.reorder(1),
      enabled: () => has() && hands.objects.at(-1) !== has(),
    },
    {
      id: "lower",
      icon: "lower",
      label: "Send backward",
      keys: "[",
      run: () => hands.reorder(-1),
      enabled: () => has() && hands.objects[0] !== has(),
    },
    { id: "rename", icon: "rename", label: "Rename", keys: "F2", run: () => list.rename(hands.selected), enabled: has },
    {
      id: "twin",
      icon: "twin",
      label: "Duplicate",
      keys: "Ctrl+D",
      run: () => hands.duplicate(),
      enabled: () => has() && many() < MOST_OBJECTS,
    },
    { id: "copy", icon: "copy", label: "Copy", keys: "Ctrl+C", run: () => editor.copy(), enabled: has },
    {
      id: "paste",
      icon: "paste",
      label: "Paste",
      keys: "Ctrl+V",
      run: () => editor.paste(),
      enabled: () => editor.canPaste,
    },
    { id: "remove", icon: "remove", label: "Delete", keys: "Delete", run: () => hands.remove(), enabled: has },
  ]);
  const field = (id, label, title, step, factor = 1) => ({
    id,
    label,
    title,
    step,
    get: () => poseAt(hands.current, hands.frame)[id] * factor,
    set: (value) => hands.setPose({ [id]: value / factor }),
  });
  const fields = new NumberFields("Place of the selected part at this frame", [
    field("x", "X %", "Moved to the right, percent of the picture's width", 1, 100),
    field("y", "Y %", "Moved down, percent of the picture's height", 1, 100),
    field("angle", "Turn \u00b0", "Turned clockwise, degrees", 5),
    field("scale", "Size %", "Size, percent", 5, 100),
  ]);
  return [list, fields];
}

export function motionTimeline(hands) {
  const { editor } = hands;
  const own =
    (change) =>
    (...values) => {
      hands.change(change(hands.current, ...values));
      editor.commit();
    };
  return new Timeline({
    label: "Timeline",
    ways: WAYS,
    travel,
    player: hands.player,
    frames: () => hands.frames,
    frame: () => hands.frame,
    keys: () => hands.current?.keys ?? [],
    title: () => hands.current?.name ?? "",
    canKey: () => Boolean(hands.current) && !editor.locked,
    seek: (frame) => {
      hands.frame = frame;
      editor.refresh();
    },
    addKey: own(edits.addKey),
    removeKey: own(edits.removeKey),
    setWay: own(edits.setWay),
    moveKey: (index, frame) => hands.change(edits.moveKey(hands.current, index, frame)),
    keyMoved: () => editor.commit(),
  });
}
