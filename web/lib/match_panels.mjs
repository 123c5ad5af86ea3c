// What lies under the pictures of the Match Points editor: a button for every pair, and the numbers of the selected
// one. `hands` is the editor's MatchPointsHands.

import { make } from "./editor_style.mjs";
import { isWhole, pairColour, SIDES } from "./match_points.mjs";
import { NumberFields } from "./object_list.mjs";

const AXES = ["x", "y"];

export class MatchPanels {
  constructor(hands) {
    this.hands = hands;
    this.list = make("ul", { class: "list chips", "aria-label": "Pairs of points" });
    this.fields = new NumberFields(
      "The selected pair",
      SIDES.flatMap((side) =>
        AXES.map((axis, number) => ({
          id: `${side}-${axis}`,
          label: number ? `${axis.toUpperCase()} %` : `${side === "reference" ? "Reference" : "Target"} X %`,
          title: `Its point in the ${side}, percent of the picture's ${number ? "height" : "width"}`,
          step: 0.1,
          get: () => (hands.current[side]?.[number] ?? NaN) * 100,
          set: (value) => hands.set(side, (hands.current[side] ?? [0.5, 0.5]).with(number, value / 100)),
        })),
      ),
    );
    this.fields.element.classList.add("row");
  }

  get elements() {
    return [this.list, this.fields.element];
  }

  refresh() {
    const { hands } = this;
    this.fields.refresh(Boolean(hands.current) && !hands.editor.locked);
    const whole = hands.points.map(isWhole),
      wanted = JSON.stringify([whole, hands.selected]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const focused = this.list.getRootNode().activeElement?.dataset?.pair;
    const items = whole.map((good, index) =>
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            "data-pair": index,
            "aria-pressed": String(index === hands.selected),
            "aria-label": hands.nameOf(index),
            title: hands.nameOf(index),
            onclick: () => hands.select(index),
          },
          make("span", { class: "chip", style: `background: ${pairColour(index)}` }),
          good ? String(index + 1) : `${index + 1} ?`,
        ),
      ),
    );
    if (!items.length) items.push(make("li", { class: "hint" }, "No pairs yet."));
    this.list.replaceChildren(...items);
    if (focused) this.list.querySelector(`[data-pair="${focused}"]`)?.focus();
    this.list.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }
}
