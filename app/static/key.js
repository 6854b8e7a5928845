// The key: asked for when the service wants one, kept for this tab only.

import * as api from "./api.js";
import { $ } from "./words.js";

/** `used()` is told when another key is in use. */
export function keyDialog(used) {
  const dialog = $("key-dialog");
  const ask = (text) => {
    $("key-told").textContent = text;
    $("key").value = "";
    if (!dialog.open) dialog.showModal();
  };
  $("key-open").onclick = () => ask(api.key.get() ? "This tab holds a key until it is closed." : "A key is kept for this tab only, until it is closed.");
  dialog.onclose = () => {
    if (dialog.returnValue === "forget") api.key.set("");
    else if (dialog.returnValue === "use" && $("key").value.trim()) api.key.set($("key").value.trim());
    else return;
    used();
  };
  api.on("unauthorized", () =>
    ask(api.key.get() ? "The service does not take this key for what was asked: reading needs a read key, storing one that may write." : "This service asks for a key. It is kept for this tab only, until it is closed."));
}
