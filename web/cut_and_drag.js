// Puts the Cut and Drag editor on its node, in place of the text in "motion".

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { CutAndDragHands } from "./lib/cut_and_drag_editor.mjs";
import { mountEditor } from "./lib/mount.mjs";

app.registerExtension({
  name: "papernodes.cutAndDrag",
  nodeCreated(node) {
    if (node.comfyClass !== "PaperNodes_CutAndDrag") return;
    mountEditor({
      app, api, node, storeName: "motion", pictureInputs: ["first_frame"], label: "Cut and drag",
      makeHands: (editor) => new CutAndDragHands(editor),
    });
  },
});
