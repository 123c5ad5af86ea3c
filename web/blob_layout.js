// Puts the Blob Layout editor on its node, in place of the text in "layout".

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { BlobLayoutHands } from "./lib/blob_layout_editor.mjs";
import { mountEditor } from "./lib/mount.mjs";

app.registerExtension({
  name: "papernodes.blobLayout",
  nodeCreated(node) {
    if (node.comfyClass !== "PaperNodes_BlobLayout") return;
    mountEditor({
      app, api, node, storeName: "layout", pictureInputs: ["picture"], label: "Blob layout", size: [720, 780],
      makeHands: (editor) => new BlobLayoutHands(editor),
    });
  },
});
