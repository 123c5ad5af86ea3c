// Pointers, wheel and keys of an editor. Nothing is listened to outside the editor's own element.

const WHEEL = { pixels: 0.0015, lines: 0.05 };
const PAN_STEP = 40;
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const WRITTEN_IN = ["INPUT", "SELECT", "TEXTAREA"];

export class Gestures {
  constructor(editor) {
    this.editor = editor;
    this.pointers = new Map();
    this.dragging = null;
    const { element, canvas } = editor;
    // Nothing pressed in here may move the node or open the graph's menus. (Touches pass: the graph counts them.)
    for (const name of ["pointerdown", "mousedown", "dblclick", "contextmenu"])
      element.addEventListener(name, (event) => event.stopPropagation());
    // With Shift held, Nodes 2.0 would begin to drag the node on the way; a link that is drawn over the editor passes.
    const pressed = new Set();
    element.addEventListener("pointerdown", (event) => pressed.add(event.pointerId));
    for (const name of ["pointermove", "pointerup", "pointercancel"])
      element.addEventListener(name, (event) => {
        if (pressed.has(event.pointerId)) event.stopPropagation();
        if (name !== "pointermove") pressed.delete(event.pointerId);
      });
    // In Nodes 2.0 the graph takes the wheel before the editor sees it, unless told not to.
    element.addEventListener("focusin", () => element.setAttribute("data-capture-wheel", "true"));
    element.addEventListener("focusout", () => element.removeAttribute("data-capture-wheel"));
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    // After pointerup the capture is lost, too, and then there is nothing left to cancel.
    for (const name of ["pointercancel", "lostpointercapture"])
      canvas.addEventListener(name, (event) => this.pointers.has(event.pointerId) && this.#cancel(event));
    canvas.addEventListener("pointerleave", () => editor.hands.hover?.(null));
    canvas.addEventListener("dblclick", (event) => editor.locked || editor.hands.double?.(editor.spot(event)));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    for (const name of ["pointerenter", "focus", "blur"]) canvas.addEventListener(name, () => editor.redraw());
  }

  #down(event) {
    const { editor } = this;
    editor.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, editor.place(event));
    editor.canvas.setPointerCapture(event.pointerId);
    if (this.pointers.size > 1) {
      this.abort(); // two fingers move a view: in the node the graph's, in the large view the editor's
      return;
    }
    editor.message = "";
    if (event.button === 1) {
      event.preventDefault();
      this.dragging = { pan: true };
    } else if (event.button === 0 && !editor.locked) {
      const handle = editor.handleAt(event);
      const spot = editor.spot(event, handle?.pane);
      const dragged = handle ?? editor.hands.press?.(spot, event);
      this.dragging = dragged ? { ...dragged, start: spot } : null;
    }
    editor.refresh();
  }

  #move(event) {
    const { editor } = this,
      place = editor.place(event);
    const before = this.pointers.get(event.pointerId);
    if (before) {
      if (this.pointers.size > 1) editor.dialog.open && this.#pinch(event.pointerId, before, place);
      else if (this.dragging?.pan) this.#pane(place).view.moveBy([place[0] - before[0], place[1] - before[1]]);
      else this.dragging?.drag?.(editor.spot(event, this.dragging.start.pane), event, this.dragging.start);
      this.pointers.set(event.pointerId, place);
      if (this.dragging) editor.refresh();
      else editor.redraw();
      return;
    }
    const handle = editor.handleAt(event),
      spot = editor.spot(event);
    editor.canvas.style.cursor = handle?.cursor ?? editor.hands.cursor?.(spot) ?? "default";
    editor.hands.hover?.(spot);
  }

  #pane(place) {
    const { panes } = this.editor;
    return panes.find(({ view }) => view.contains(place)) ?? panes[0];
  }

  // The view follows two fingers: their middle and their distance.
  #pinch(moved, before, now) {
    const other = [...this.pointers].find(([pointer]) => pointer !== moved)[1];
    const middle = (place) => [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
    const far = (place) => Math.max(Math.hypot(place[0] - other[0], place[1] - other[1]), 1);
    const { view } = this.#pane(middle(now));
    view.moveBy([(now[0] - before[0]) / 2, (now[1] - before[1]) / 2]);
    view.zoomAt(middle(now), far(now) / far(before));
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    const ended = this.dragging;
    this.dragging = null;
    ended?.end?.();
    this.editor.refresh();
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    this.abort();
  }

  // Leaves a drag without a trace. Returns whether there was one.
  abort() {
    const aborted = this.dragging;
    this.dragging = null;
    if (!aborted || aborted.pan) return false;
    aborted.cancel?.();
    this.editor.revert();
    return true;
  }

  #wheel(event) {
    const { editor } = this;
    // Over an editor that is not used at the moment the wheel is the graph's.
    if (!editor.dialog.open && !editor.element.matches(":focus-within")) return;
    event.stopPropagation();
    if (event.composedPath()[0] !== editor.canvas) return;
    event.preventDefault();
    const place = editor.place(event),
      step = event.deltaMode ? WHEEL.lines : WHEEL.pixels;
    this.#pane(place).view.zoomAt(place, Math.exp(-event.deltaY * step));
    editor.refresh();
  }

  #key(event) {
    const { editor } = this,
      target = event.composedPath()[0];
    const control = event.ctrlKey || event.metaKey;
    if (WRITTEN_IN.includes(target?.tagName)) {
      event.stopPropagation(); // the graph's single-letter shortcuts
      return;
    }
    editor.message = "";
    const used = this.#ownKey(event, target === editor.canvas, control);
    // Shortcuts such as Ctrl+S and Ctrl+Enter remain the graph's; plain keys never do: Delete would remove the node.
    if (used || !control) event.stopPropagation();
    if (used) {
      event.preventDefault();
      editor.refresh();
    }
  }

  #ownKey(event, onCanvas, control) {
    const { editor } = this,
      key = event.key.toLowerCase();
    if (control && editor.store) {
      if (key === "z") return (event.shiftKey ? editor.redo() : editor.undo(), true);
      if (key === "y") return (editor.redo(), true);
      if (key === "c") return (editor.copy(), true);
      if (key === "x") return (editor.cut(), true);
      if (key === "v") return (editor.paste(), true);
    }
    if (control) {
      if (onCanvas && event.key in ARROWS) {
        const [x, y] = ARROWS[event.key];
        const { view } = editor.hands.pane?.() ?? editor;
        return (view.moveBy([x * PAN_STEP, y * PAN_STEP]), true);
      }
    } else {
      if (key === "escape") return this.abort() || Boolean(editor.hands.escape?.());
      if (key === "0") return (editor.fit(), true);
      if (key === "f") return (editor.enlarge(), true);
      if (key === "+" || key === "=") return (editor.zoom(1.25), true);
      if (key === "-") return (editor.zoom(1 / 1.25), true);
    }
    return editor.locked ? false : Boolean(editor.hands.key?.(event, onCanvas));
  }
}
