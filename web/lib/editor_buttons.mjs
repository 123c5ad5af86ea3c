// The buttons that editors have in common, in groups: {id, icon, label, keys, run(), enabled(), pressed(), always}.

const ZOOM_STEP = 1.25;

export function undoButtons(editor) {
  return [
    {
      id: "undo",
      icon: "undo",
      label: "Undo",
      keys: "Ctrl+Z",
      run: () => editor.undo(),
      enabled: () => editor.history.canUndo,
    },
    {
      id: "redo",
      icon: "redo",
      label: "Redo",
      keys: "Ctrl+Y",
      run: () => editor.redo(),
      enabled: () => editor.history.canRedo,
    },
  ];
}

export function viewButtons(editor, fitWords = "Show the whole picture") {
  const zoom = (id, label, keys, factor) => ({ id, icon: id, label, keys, always: true, run: () => editor.zoom(factor) });
  return [
    zoom("farther", "Zoom out", "-", 1 / ZOOM_STEP),
    zoom("closer", "Zoom in", "+", ZOOM_STEP),
    { id: "fit", icon: "fit", label: fitWords, keys: "0", always: true, run: () => editor.fit() },
    {
      id: "large",
      icon: "large",
      label: "Large view",
      keys: "F",
      always: true,
      run: () => editor.enlarge(),
      pressed: () => editor.dialog.open,
    },
  ];
}
