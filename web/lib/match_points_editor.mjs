// The hands of the Match Points editor: a click in one picture and one in the other make a numbered pair, which is
// dragged, typed and deleted; the pairs become the JSON that kernels/matched_points.py reads.

import * as edits from "./match_points.mjs";
import { drawMatches, matchHandles } from "./match_drawing.mjs";
import { KEY_WORDS, matchKey } from "./match_keys.mjs";
import { MatchPanels } from "./match_panels.mjs";
import { nearestHandle } from "./view.mjs";

const HOVER_TOLERANCE = 8; // CSS pixels

export class MatchPointsHands {
  constructor(editor) {
    Object.assign(this, { editor, selected: null, chosenSide: "reference", hovered: null, lines: true, keyWords: KEY_WORDS });
    const some = () => this.points.length > 0;
    this.buttons = [
      [
        {
          id: "add",
          icon: "pair",
          label: "Add a pair in the middle, or a missing point",
          keys: "N",
          run: () => this.addInTheMiddle(),
          enabled: () => this.wanted || this.points.length < edits.MOST_PAIRS,
        },
        {
          id: "remove",
          icon: "remove",
          label: "Delete the selected pair",
          keys: "Delete",
          run: () => this.remove(),
          enabled: () => this.current,
        },
        { id: "clear", icon: "clear", label: "Delete all pairs", run: () => this.clear(), enabled: some },
      ],
      [
        {
          id: "lines",
          icon: "lines",
          label: "Show the lines between all pairs",
          keys: "L",
          always: true,
          pressed: () => this.lines,
          run: () => (this.lines = !this.lines),
        },
      ],
    ];
  }

  get points() {
    return this.editor.state.points;
  }
  get current() {
    return this.points[this.selected] ?? null;
  }

  // The unfinished pair that is spoken of: the selected one, or the first.
  get unfinished() {
    if (this.current && !edits.isWhole(this.current)) return this.selected;
    return this.points.findIndex((pair) => !edits.isWhole(pair));
  }

  // The picture in which a place is wanted for it, or null.
  get wanted() {
    const pair = this.points[this.unfinished];
    return pair ? edits.SIDES.find((side) => !pair[side]) : null;
  }

  paneOf(side) {
    return this.editor.panes[edits.SIDES.indexOf(side)];
  }

  sideOf(pane) {
    return edits.SIDES[this.editor.panes.indexOf(pane)];
  }

  // The picture that keys work on.
  pane() {
    return this.paneOf(this.chosenSide);
  }

  nameOf(index) {
    const lacking = edits.SIDES.find((side) => !this.points[index][side]);
    return `Pair ${index + 1}${lacking ? `, not yet in the ${lacking}` : ""}`;
  }

  read(text) {
    return edits.parsePoints(text);
  }

  write(state) {
    return JSON.stringify(state);
  }

  refreshed() {
    if (!this.current) this.selected = null;
    if (this.hovered !== null && !this.points[this.hovered]) this.hovered = null;
    this.panels?.refresh();
  }

  below() {
    this.panels = new MatchPanels(this);
    return this.panels.elements;
  }

  describe() {
    const { unfinished, wanted, selected } = this,
      count = this.points.length;
    if (wanted) return `Pair ${unfinished + 1}: now click the same place in the ${wanted}. Escape deletes the pair.`;
    if (!count) return "Click a place in the reference, then the same place in the target.";
    if (this.current) return `Pair ${selected + 1} of ${count}: drag its points, or click on for another pair.`;
    return `${count} pair${count > 1 ? "s" : ""}. Click a place in either picture for another one.`;
  }

  // What is changed, and how: change() on the way, editor.commit() at the end.

  choose(index, side) {
    Object.assign(this, { selected: index, chosenSide: side });
  }

  select(index) {
    this.selected = index;
    if (!this.points[index][this.chosenSide]) this.chosenSide = edits.otherSide(this.chosenSide);
    this.editor.refresh();
  }

  chooseSide(side) {
    this.chosenSide = side;
  }

  change(index, side, point) {
    this.editor.state = edits.setPoint(this.editor.state, index, side, point);
  }

  // A finished change of the selected pair.
  set(side, point) {
    if (!this.current || this.editor.locked) return;
    this.chosenSide = side;
    this.change(this.selected, side, point);
    this.editor.commit();
  }

  // Puts a point where one is waited for, else begins a pair with it. Returns whether there was room for it.
  #put(side, point) {
    const waiting = edits.waitingFor(this.points, side, this.selected);
    if (waiting >= 0) this.change(waiting, side, point);
    else if (!this.#add({ [side]: point })) return false;
    this.choose(waiting >= 0 ? waiting : this.points.length - 1, side);
    return true;
  }

  #add(pair) {
    const state = edits.addPair(this.editor.state, pair);
    if (state) this.editor.state = state;
    else this.editor.say(`There are ${edits.MOST_PAIRS} pairs already; more cannot be used.`);
    return Boolean(state);
  }

  addInTheMiddle() {
    const { editor, wanted } = this,
      middle = (side) => {
        const { area } = this.paneOf(side).view;
        return this.paneOf(side).view.toPicture([area.x + area.width / 2, area.y + area.height / 2]);
      };
    if (editor.locked) return;
    if (wanted) this.#put(wanted, middle(wanted));
    else if (this.#add({ reference: middle("reference"), target: middle("target") }))
      this.choose(this.points.length - 1, "reference");
    else return;
    editor.commit();
  }

  remove() {
    if (!this.current || this.editor.locked) return;
    this.editor.state = edits.removePair(this.editor.state, this.selected);
    const { length } = this.points;
    this.selected = length ? Math.min(this.selected, length - 1) : null;
    this.editor.commit();
  }

  clear() {
    this.editor.state = { ...this.editor.state, points: [] };
    this.selected = null;
    this.editor.commit();
  }

  // Pointers

  handles() {
    return matchHandles(this);
  }

  press(spot) {
    const side = this.sideOf(spot.pane);
    if (!isInside(spot.point)) {
      this.selected = null;
      return null;
    }
    if (!this.#put(side, spot.point)) return null;
    const index = this.selected;
    return {
      drag: (moved) => this.change(index, side, moved.point),
      end: () => this.editor.commit(),
    };
  }

  hover(spot) {
    const hovered = spot && (nearestHandle(this.handles(), spot.place, HOVER_TOLERANCE)?.index ?? null);
    if (hovered === this.hovered) return;
    this.hovered = hovered;
    this.editor.redraw();
  }

  cursor(spot) {
    return isInside(spot.point) && !this.editor.locked ? "crosshair" : "default";
  }

  // Keys

  escape() {
    if (this.wanted && !this.editor.locked) {
      this.selected = this.unfinished;
      this.remove();
      this.selected = null;
      return true;
    }
    if (this.selected === null) return false;
    this.selected = null;
    return true;
  }

  key(event, onCanvas) {
    return matchKey(this, event, onCanvas);
  }

  // Drawing

  draw(context) {
    drawMatches(context, this);
  }
}

function isInside(point) {
  return point.every((share) => share >= 0 && share <= 1);
}
