// Puts the viewer on Panorama Preview.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { mountEditor } from "./lib/mount.mjs";
import { PanoramaPane } from "./lib/panorama_pane.mjs";
import { PanoramaHands } from "./lib/panorama_viewer.mjs";

app.registerExtension({
  name: "papernodes.panoramaPreview",
  nodeCreated(node) {
    if (node.comfyClass !== "PaperNodes_PanoramaPreview") return;
    mountEditor({
      app, api, node, pictureInputs: ["images"], label: "Panorama", size: [540, 560], minHeight: 340,
      makePane: (input, changed) => new PanoramaPane(input, changed),
      makeHands: (editor) => new PanoramaHands(editor),
    });
  },
});
