// Puts an editor on a node of the graph, in classic nodes and in Nodes 2.0.

import { Editor } from "./editor.mjs";

const MARGIN = 10; // round a DOM widget in classic nodes

// Puts an editor on a node in place of the STRING widget `storeName`, or a viewer, which has none. Options as the
// Editor's.
export function mountEditor({ node, storeName, minHeight = 460, size = [540, 720], ...options }) {
  const store = storeName ? node.widgets?.find((widget) => widget.name === storeName) : null;
  if (storeName && !store) return null;
  if (store) hide(store);
  const editor = new Editor({ node, store, ...options });
  const widget = node.addDOMWidget(`${storeName ?? "papernodes"}_editor`, "PAPERNODES_EDITOR", editor.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => minHeight,
  });
  widget.serialize = false; // else an empty text lands in widgets_values
  widget.editor = editor;
  editor.element.style.minHeight = `${minHeight - 2 * MARGIN}px`;
  node.setSize([Math.max(node.size[0], size[0]), Math.max(node.size[1], size[1])]);
  if (store) chain(node, "onConfigure", () => editor.read());
  chain(node, "onConnectionsChange", () => {
    for (const pane of editor.panes) pane.shown = null;
    editor.watch();
  });
  chain(node, "onExecuted", (message) => editor.executed(message));
  chain(node, "onRemoved", () => editor.dispose());
  return editor;
}

// Classic nodes ask the widget and leave room for its text area, Nodes 2.0 ask its options.
function hide(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
  widget.computeLayoutSize = () => ({ minHeight: 0, maxHeight: 0, minWidth: 0 });
}

function chain(node, name, then) {
  const before = node[name];
  node[name] = function (...values) {
    const result = before?.apply(this, values);
    then(...values);
    return result;
  };
}
