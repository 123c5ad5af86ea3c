// Puts the Match Points editor on its node, in place of the text in "points".

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { MatchPointsHands } from "./lib/match_points_editor.mjs";
import { mountEditor } from "./lib/mount.mjs";

app.registerExtension({
  name: "papernodes.matchPoints",
  nodeCreated(node) {
    if (node.comfyClass !== "PaperNodes_MatchPoints") return;
    mountEditor({
      app, api, node, storeName: "points", pictureInputs: ["reference", "target"], label: "Match points",
      size: [700, 600], makeHands: (editor) => new MatchPointsHands(editor),
    });
  },
});
