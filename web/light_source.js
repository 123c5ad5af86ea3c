// Puts the Light Source editor on its node, in place of the text in "lights".

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { LightSourceHands } from "./lib/light_source_editor.mjs";
import { mountEditor } from "./lib/mount.mjs";

app.registerExtension({
  name: "papernodes.lightSource",
  nodeCreated(node) {
    if (node.comfyClass !== "PaperNodes_LightSource") return;
    mountEditor({
      app, api, node, storeName: "lights", pictureInputs: ["background"], label: "Light source",
      makeHands: (editor) => new LightSourceHands(editor),
    });
  },
});
