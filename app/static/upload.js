// A spectrum from a FITS file: looked at, not stored.

import { postFits, query } from "./api.js";
import { $, make, parameter, tell } from "./words.js";

/** `opened({file, labels, star})` is called with a spectrum that the service could read. */
export function uploadSpectrum(card, opened) {
  const names = [...new Set(["teff", "logg", "fe_h", ...Object.keys(card.parameters)])];
  for (const name of names) {
    const known = parameter(name, card);
    $("labels").append(
      make("label", { htmlFor: `label-${name}` }, `${known.name}${known.unit ? ` (${known.unit})` : ""}`),
      make("input", { id: `label-${name}`, inputMode: "decimal", placeholder: "from the file" }),
    );
  }
  const field = (name) => $(`label-${name}`);
  $("file").onchange = () => {
    for (const name of names) Object.assign(field(name), { value: "", placeholder: "from the file" });
    tell($("upload-error"), null);
    if ($("file").files.length) look();
  };
  $("upload-form").onsubmit = (event) => {
    event.preventDefault();
    look();
  };

  async function look() {
    const [file] = $("file").files;
    if (!file) return tell($("upload-error"), { message: "choose a FITS file first" });
    const labels = Object.fromEntries(names.map((name) => [name, field(name).value.trim()]).filter(([, value]) => value));
    tell($("upload-error"), null);
    $("upload-form").setAttribute("aria-busy", "true");
    try {
      const star = await postFits(`spectrum${query(labels)}`, file);
      for (const name of names) {
        const value = star[name] ?? star.parameters?.[name];
        if (!field(name).value) field(name).placeholder = `${value.toFixed(parameter(name, card).decimals)}, from the file`;
      }
      await opened({ file, labels, star });
      $("upload").open = false;
      $("star-name").focus();
    } catch (error) {
      tell($("upload-error"), error.code === "missing_labels" ? missing(error) : error);
      if (error.code === "missing_labels") field(names.find((name) => !field(name).value))?.focus(); // none is empty where the reader was faster
    } finally {
      $("upload-form").removeAttribute("aria-busy");
    }
    return undefined;
  }
}

function missing(error) {
  return { message: error.message.replace("must be in the query string", "must be given here") };
}
