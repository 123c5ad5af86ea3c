// The list of the parts, the one in front first: choose, rename, order, copy, delete.

import { make } from "./editor_style.mjs";
import { LONGEST_NAME } from "./drag_motion.mjs";

// hands: selected (id), colourOf(object), select(id), rename(id, name), and the actions named in ACTIONS.
export class ObjectList {
  constructor(editor, hands, actions) {
    Object.assign(this, { editor, hands, renaming: null });
    this.list = make("ul", { class: "list", "aria-label": "Parts, the one in front first" });
    const group = make("div", { class: "group", role: "group" }, ...actions.map((button) => editor.button(button)));
    this.element = make("div", { class: "bar", role: "toolbar", "aria-label": "Selected part" }, group);
  }

  refresh() {
    const { objects } = this.editor.state,
      { selected } = this.hands;
    const wanted = JSON.stringify([
      objects.map((each) => [each.id, each.name, this.hands.colourOf(each)]),
      selected,
      this.renaming,
      this.editor.locked,
    ]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const focused = this.list.getRootNode().activeElement?.dataset?.object;
    const rows = objects
      .toReversed()
      .map((object) => make("li", {}, object.id === this.renaming ? this.#field(object) : this.#row(object)));
    if (!rows.length)
      rows.push(make("li", { class: "hint" }, "No parts yet. Draw round one with the lasso or the polygon."));
    this.list.replaceChildren(...rows);
    const field = this.list.querySelector("input");
    if (field) field.select();
    else if (focused) this.list.querySelector(`[data-object="${focused}"]`)?.focus();
    this.list.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }

  rename(id) {
    this.renaming = id;
    this.refresh();
    this.list.querySelector("input")?.focus();
  }

  #row(object) {
    const title = object.name || object.id;
    return make(
      "button",
      {
        type: "button",
        "data-object": object.id,
        "aria-pressed": String(object.id === this.hands.selected),
        title,
        onclick: () => this.hands.select(object.id),
        ondblclick: () => this.editor.locked || this.rename(object.id),
      },
      make("span", { class: "chip", style: `background: ${this.hands.colourOf(object)}` }),
      make("span", { class: "name" }, title),
    );
  }

  #field(object) {
    const field = make("input", {
      type: "text",
      maxlength: LONGEST_NAME,
      "aria-label": "Name of the part",
      value: object.name,
    });
    let over = false;
    const end = (keep) => {
      if (over) return;
      over = true;
      this.renaming = null;
      if (keep && field.value.trim() && field.value !== object.name) this.hands.rename(object.id, field.value.trim());
      this.refresh();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      end(event.key === "Enter");
      this.list.querySelector(`[data-object="${object.id}"]`)?.focus();
    });
    field.addEventListener("blur", () => end(true));
    return field;
  }
}

// A list whose rows choose things: label, attribute (data-...), hint where it is empty, choose(key).
export class RowList {
  constructor({ label, attribute, hint, choose }) {
    Object.assign(this, { attribute, hint, choose });
    this.element = make("ul", { class: "list", "aria-label": label });
  }

  // rows: [{key, name, colour, title?}]; `selected` is a key. What did not change is left alone.
  refresh(rows, selected) {
    const wanted = JSON.stringify([rows, selected]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const data = `data-${this.attribute}`,
      focused = this.element.getRootNode().activeElement?.getAttribute?.(data);
    const items = rows.map(({ key, name, colour, title = name }) =>
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            [data]: key,
            "aria-pressed": String(key === selected),
            "aria-label": title,
            title,
            onclick: () => this.choose(key),
          },
          make("span", { class: "chip", style: `background: ${colour}` }),
          make("span", { class: "name" }, name),
        ),
      ),
    );
    if (!items.length) items.push(make("li", { class: "hint" }, this.hint));
    this.element.replaceChildren(...items);
    if (focused) [...this.element.querySelectorAll("button")].find((row) => row.getAttribute(data) === focused)?.focus();
    this.element.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }
}

// Number fields in a grid: fields = [{id, label, title, step, get() -> number, NaN = none, set(number)}].
export class NumberFields {
  constructor(label, fields) {
    this.fields = fields.map((field) => {
      const input = make("input", {
        type: "number",
        step: field.step,
        "aria-label": field.title,
        title: field.title,
        "data-id": field.id,
        oninput: () => (this.written = input),
        onblur: () => (this.written = null),
        onchange: () => {
          this.written = null;
          if (Number.isFinite(input.valueAsNumber)) field.set(input.valueAsNumber);
        },
      });
      return { ...field, input };
    });
    this.element = make(
      "div",
      { class: "fields", role: "group", "aria-label": label },
      ...this.fields.map(({ label: name, input }) => make("label", {}, make("span", {}, name), input)),
    );
  }

  refresh(enabled) {
    for (const { input, get } of this.fields) {
      input.disabled = !enabled;
      const number = enabled ? Number(get().toFixed(2)) : NaN,
        value = Number.isNaN(number) ? "" : String(number);
      if (input !== this.written) input.value = value; // not while somebody is writing
    }
  }
}
