// What is told of a star, of its plot and of its twins.

import { apart, UNLIKELY } from "./table.js";
import { $, make, number, parameter, tell, withUnit } from "./words.js";

/** Show a star that the service has `seen`; `unstored`: it was brought, and may be stored. */
export function showFacts(seen, unstored, card) {
  const own = (name) => seen[name] ?? seen.parameters?.[name];
  $("star-name").textContent = seen.star_id ?? "A spectrum that is not stored";
  const names = [...new Set(["teff", "logg", "fe_h", ...Object.keys(card.parameters)])];
  const rows = names.map((name) => [parameter(name, card).name, withUnit(name, own(name), card)]);
  rows.push(["S/N", number(seen.snr, 0)], ["reduced \u03c7\u00b2", number(seen.chi2, 2)]);
  rows.push(["pixels masked", `${(100 * seen.masked_fraction).toFixed(1)} %`]);
  if (seen.ra !== null && seen.dec !== null) rows.push(["RA, Dec", `${number(seen.ra, 4)}\u00b0, ${number(seen.dec, 4)}\u00b0`]);
  $("star-facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const doubts = [...seen.warnings];
  if (!seen.in_domain && !doubts.length) doubts.push("outside the model's domain");
  if (seen.snr === null) doubts.push("it came without errors: p (same) is unknown");
  $("star-warnings").replaceChildren(...doubts.map((text) => make("li", {}, text)));
  $("store").hidden = !unstored;
  $("copy").hidden = unstored;
  $("store-id").value = unstored ? (seen.star_id ?? "") : "";
  tell($("store-error"), null);
}

/** What the table is of, in words. */
export function account(found, rank) {
  const missed = rank === "likelihood" ? ", ranked among the 1,000 nearest" : "; a nearer one may have been missed";
  const among = `among ${found.searched.toLocaleString("en")} stars${found.exact ? "" : missed}`;
  const judged = found.twins.filter((twin) => twin.p_same !== null);
  const likely = judged.filter((twin) => !apart(twin)).length;
  const doubt = judged.length ? `; ${likely} of them within the noise, the others dimmed: p (same) below ${UNLIKELY}` : "";
  const order = rank === "likelihood" ? "likeliest" : "nearest";
  const outside = found.twins.filter((twin) => !twin.in_domain).length;
  const strange = outside ? `; ${outside} outside the model's domain` : "";
  return `the ${found.twins.length} ${order} ${among}${likely < judged.length ? doubt : ""}${strange}`;
}

/** What the plot's lines are; `moved`: the star is recast elsewhere. */
export function kind(moved, seen) {
  if (moved) return "All spectra are drawn by the model. Dotted: the star at its own parameters.";
  if (!seen.flux) return "The service kept no observed spectrum of this star: all spectra here are drawn by the model.";
  return "Grey: observed, normalised as the model sees it; below, observed minus model. All else is drawn by the model.";
}
