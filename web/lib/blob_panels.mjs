// The panels of the Blob Layout editor: the list of its blobs, one's caption and numbers, the timeline.
// `hands` is the editor's BlobLayoutHands.

import * as edits from "./blob_edits.mjs";
import { blobColour, captionAt, isThere, LONGEST_CAPTION, MOST_BLOBS, PATHS } from "./blob_layout.mjs";
import { make } from "./editor_style.mjs";
import { NumberFields, RowList } from "./object_list.mjs";
import { Timeline } from "./timeline.mjs";
import { travel, WAYS } from "./ways.mjs";

export class BlobPanels {
  constructor(hands) {
    this.hands = hands;
    this.bar = this.#bar();
    this.list = new RowList({
      label: "Blobs, the one on top first",
      attribute: "blob",
      hint: "No blobs yet. Drag on the picture to draw one.",
      choose: (id) => hands.select(id),
    });
    this.caption = new CaptionPanel(hands);
    this.fields = new NumberFields("The selected blob at this frame", [
      this.#field("x", "X %", "Middle, percent of the picture's width", 1, 100),
      this.#field("y", "Y %", "Middle, percent of the picture's height", 1, 100),
      this.#field("a", "A %", "First half axis, percent of the picture's height", 1, 100),
      this.#field("b", "B %", "Second half axis, percent of the picture's height", 1, 100),
      this.#field("angle", "Turn \u00b0", "Angle of the first axis, degrees clockwise: 0 level, 90 upright", 5),
      {
        id: "weight",
        label: "Weight",
        title: "How strongly its caption counts where it stands: 1 is full, 0 not at all",
        step: 0.1,
        get: () => hands.current.weight,
        set: (value) => hands.put(edits.setWeight(hands.current, value)),
      },
    ]);
    this.path = make(
      "select",
      {
        "aria-label": "Path from key to key",
        title: "Path from key to key: straight, or a smooth curve through all keys",
        "data-id": "path",
        onchange: () => hands.put({ ...hands.current, path: this.path.value }),
      },
      ...PATHS.map((path) => make("option", { value: path }, path)),
    );
    this.pathField = make("label", { class: "wide" }, make("span", {}, "Path"), this.path);
    this.fields.element.append(this.pathField);
  }

  get elements() {
    return [this.bar, this.list.element, this.caption.element, this.fields.element];
  }

  #bar() {
    const { hands } = this,
      { editor } = hands;
    const has = () => hands.current,
      isTop = () => hands.blobs.at(-1) === has();
    const order = (id, label, keys, steps, enabled) => ({
      id,
      icon: id,
      label,
      keys,
      run: () => hands.reorder(steps),
      enabled: () => has() && enabled(),
    });
    const buttons = [
      order("raise", "Up in the order", "Page Up", 1, () => !isTop()),
      order("lower", "Down in the order", "Page Down", -1, () => hands.blobs[0] !== has()),
      order("top", "To the top", "Shift+Page Up", Infinity, () => !isTop()),
      {
        id: "twin",
        icon: "twin",
        label: "Duplicate",
        keys: "Ctrl+D",
        run: () => hands.duplicate(),
        enabled: () => has() && hands.blobs.length < MOST_BLOBS,
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
    ].map((button) => editor.button(button));
    const group = make("div", { class: "group", role: "group" }, ...buttons);
    return make("div", { class: "bar", role: "toolbar", "aria-label": "Selected blob" }, group);
  }

  #field(id, label, title, step, factor = 1) {
    const { hands } = this;
    return {
      id,
      label,
      title,
      step,
      get: () => hands.at(hands.current)[id] * factor,
      set: (value) => hands.set({ [id]: value / factor }),
    };
  }

  refresh() {
    const { hands } = this,
      enabled = Boolean(hands.current) && !hands.editor.locked;
    const rows = hands.blobs.map((blob, index) => ({
      key: blob.id,
      name: `${index + 1}  ${captionAt(blob, hands.frame) || "(no caption)"}`,
      title: hands.nameOf(blob),
      colour: isThere(blob, hands.frame) ? blobColour(blob.id) : "transparent",
    }));
    this.list.refresh(rows.reverse(), hands.selected);
    this.caption.refresh(enabled);
    this.fields.refresh(enabled);
    this.pathField.style.display = hands.moving ? "" : "none";
    this.path.disabled = !enabled;
    this.path.value = hands.current?.path ?? PATHS[0];
  }
}

// What the selected blob is, at this frame, and at which frames that changes.
class CaptionPanel {
  constructor(hands) {
    this.hands = hands;
    const { editor } = hands;
    this.area = make("textarea", {
      rows: 2,
      maxlength: LONGEST_CAPTION,
      "aria-label": "Caption of the selected blob at this frame",
      title: "What stands there (Enter ends writing, Escape leaves it as it was)",
      placeholder: "What stands there?",
      "data-id": "caption",
      oninput: () => hands.writing(this.area.value),
      onchange: () => editor.commit(),
      onkeydown: (event) => this.#key(event),
    });
    this.words = editor.button({
      id: "words",
      icon: "words",
      label: "Another caption from this frame on",
      keys: "T",
      run: () => hands.toggleCaption(),
      enabled: () => hands.current,
      pressed: () => hands.hasCaptionHere,
    });
    const there = editor.button({
      id: "there",
      icon: "there",
      label: "In the picture",
      keys: "H",
      run: () => hands.toggleThere(),
      enabled: () => hands.current,
      pressed: () => Boolean(hands.current) && isThere(hands.current, hands.frame),
    });
    const bar = make(
      "div",
      { class: "bar" },
      make("span", {}, "Caption"),
      make("span", { class: "spring" }),
      make("div", { class: "group", role: "group" }, this.words, there),
    );
    this.frames = make("ul", { class: "list chips", "aria-label": "Frames at which the caption changes" });
    this.element = make("div", { class: "caption" }, bar, this.area, this.frames);
  }

  #key(event) {
    const { editor } = this.hands;
    if (event.key === "Escape") editor.revert();
    else if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation(); // Escape would close the large view, too
    editor.canvas.focus({ preventScroll: true });
  }

  refresh(enabled) {
    const { hands } = this,
      { current, frame } = hands;
    this.area.disabled = !enabled;
    const text = current ? captionAt(current, frame) : "";
    if (this.area.value !== text) this.area.value = text;
    this.words.style.display = hands.moving ? "" : "none";
    const frames = current?.captions.map((key) => key.frame) ?? [];
    const wanted = JSON.stringify([frames, frames.findLast((each) => each <= frame) ?? frames[0]]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    this.frames.style.display = frames.length ? "" : "none";
    const [, held] = JSON.parse(wanted);
    this.frames.replaceChildren(
      ...frames.map((each) => {
        const title = `The caption of frame ${each}`;
        return make(
          "li",
          {},
          make(
            "button",
            {
              type: "button",
              "data-caption": each,
              "aria-label": title,
              "aria-pressed": String(each === held),
              title,
              onclick: () => hands.seek(each),
            },
            String(each),
          ),
        );
      }),
    );
  }
}

export function blobTimeline(hands) {
  const { editor } = hands;
  const own =
    (change) =>
    (...values) =>
      hands.put(change(hands.current, ...values));
  return new Timeline({
    label: "Timeline",
    ways: WAYS,
    travel,
    player: hands.player,
    frames: () => hands.frames,
    frame: () => hands.frame,
    keys: () => hands.current?.keys ?? [],
    title: () => (hands.current ? hands.nameOf(hands.current) : ""),
    canKey: () => Boolean(hands.current) && !editor.locked,
    seek: (frame) => hands.seek(frame),
    addKey: own(edits.addKey),
    removeKey: own(edits.removeKey),
    setWay: own(edits.setWay),
    moveKey: (index, frame) => hands.replace(edits.moveKey(hands.current, index, frame)),
    keyMoved: () => editor.commit(),
  });
}
