// The key: asked for when the service wants one, stored for this tab only.

import * as api from "./api.js";
import { $ } from "./words.js";

/** `used()` is called when another key is in use. */
export function keyDialog(used) {
  const dialog = $("key-dialog");
  const ask = (text) => {
    $("key-note").textContent = text;
    $("key").value = "";
    if (!dialog.open) dialog.showModal();
  };
  $("key-open").onclick = () => ask(api.key.get() ? "This tab has a key until it is closed." : "A key is stored for this tab only, until it is closed.");
  dialog.onclose = () => {
    if (dialog.returnValue === "forget") api.key.set("");
    else if (dialog.returnValue === "use" && $("key").value.trim()) api.key.set($("key").value.trim());
    else return;
    used();
  };
  api.on("unauthorized", () =>
    ask(api.key.get() ? "The service does not take this key for what was asked: reading needs a read key, storing one that may write." : "This service asks for a key. It is stored for this tab only, until it is closed."));
}
