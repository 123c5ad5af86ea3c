// The panels of the Light Source editor: the list of its lights, one's numbers and colour, the timeline.
// `hands` is the editor's LightSourceHands.

import { make } from "./editor_style.mjs";
import * as edits from "./light_edits.mjs";
import { MOST_LIGHTS, toHex } from "./light_maps.mjs";
import { NumberFields, RowList } from "./object_list.mjs";
import { Timeline } from "./timeline.mjs";
import { travel, WAYS } from "./ways.mjs";

export class LightPanels {
  constructor(hands) {
    const { editor } = hands;
    this.hands = hands;
    this.list = new RowList({
      label: "Lights",
      attribute: "light",
      hint: "No lights: all is dark. Add one with the sun or the lamp.",
      choose: (index) => hands.select(index),
    });
    const has = () => hands.current;
    const buttons = [
      {
        id: "twin",
        icon: "twin",
        label: "Duplicate",
        keys: "Ctrl+D",
        run: () => hands.duplicate(),
        enabled: () => has() && hands.lights.length < MOST_LIGHTS,
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
    this.bar = make("div", { class: "bar", role: "toolbar", "aria-label": "Selected light" }, group);
    this.colour = this.#colourField();
    this.fields = {
      side: this.#fields("side", [
        ["angle", "From \u00b0", "Where the light comes from, degrees: 0 right, 90 below, 180 left, 270 above", 5],
        ["intensity", "Power", "Intensity: 1 is full", 0.1],
      ]),
      point: this.#fields("point", [
        ["x", "X %", "Place, percent of the picture's width", 1, 100],
        ["y", "Y %", "Place, percent of the picture's height", 1, 100],
        ["radius", "Size %", "Radius, percent of the picture's shorter side", 1, 100],
        ["falloff", "Falloff", "Falloff: higher is darker far from the light", 0.1],
        ["intensity", "Power", "Intensity: 1 is full", 0.1],
      ]),
    };
    // One above the other, so that the canvas keeps its size whatever is selected.
    this.layers = make("div", { class: "layers" }, this.fields.side.element, this.fields.point.element);
  }

  get elements() {
    return [this.bar, this.list.element, this.layers];
  }

  #fields(kind, fields) {
    const { hands } = this;
    return new NumberFields(
      `The selected ${kind} light at this frame`,
      fields.map(([name, label, title, step, factor = 1]) => ({
        id: `${kind}-${name}`,
        label,
        title,
        step,
        get: () => hands.at(hands.selected)[name] * factor,
        set: (value) => hands.set({ [name]: value / factor }),
      })),
    );
  }

  #colourField() {
    const { hands } = this,
      title = "Colour of the selected light at this frame";
    const input = make("input", {
      type: "color",
      "aria-label": title,
      title,
      "data-id": "colour",
      // On the way while the picker is open, then once when it is closed.
      oninput: () => hands.current && hands.change(hands.selected, { colour: input.value }, true),
      onchange: () => hands.set({ colour: input.value }),
    });
    return {
      input,
      element: make("label", {}, make("span", {}, "Colour"), input),
    };
  }

  refresh() {
    const { hands } = this,
      { current, editor } = hands;
    this.list.refresh(
      hands.lights.map((_, key) => ({ key, name: hands.nameOf(key), colour: toHex(hands.at(key).colour) })),
      hands.selected,
    );
    for (const [kind, fields] of Object.entries(this.fields)) {
      const shown = current?.kind === kind;
      fields.element.style.visibility = shown ? "" : "hidden";
      fields.refresh(shown && !editor.locked);
      // The one colour field stands among the numbers that are seen.
      if (shown && this.colour.element.parentNode !== fields.element) fields.element.append(this.colour.element);
    }
    this.colour.input.disabled = !current || editor.locked;
    if (current) this.colour.input.value = toHex(hands.at(hands.selected).colour);
  }
}

export function lightTimeline(hands) {
  const { editor } = hands;
  const own =
    (change) =>
    (...values) => {
      hands.replace(hands.selected, change(hands.current, ...values));
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
    title: () => (hands.current ? hands.nameOf(hands.selected) : ""),
    canKey: () => Boolean(hands.current) && !editor.locked,
    seek: (frame) => {
      hands.frame = frame;
      editor.refresh();
    },
    addKey: own(edits.addKey),
    removeKey: own(edits.removeKey),
    setWay: own(edits.setWay),
    moveKey: (index, frame) => hands.replace(hands.selected, edits.moveKey(hands.current, index, frame)),
    keyMoved: () => editor.commit(),
  });
}
