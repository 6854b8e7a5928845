// Texts about a star, its plot and its twins.

import { $, make, number, parameter, tell, withUnit } from "./words.js";

/** Show a star, as the service describes it; `unstored`: it was uploaded, and may be stored. */
export function showFacts(star, unstored, card) {
  const own = (name) => star[name] ?? star.parameters?.[name];
  $("star-name").textContent = star.star_id ?? "A spectrum that is not stored";
  const names = [...new Set(["teff", "logg", "fe_h", ...Object.keys(card.parameters)])];
  const rows = names.map((name) => [parameter(name, card).name, withUnit(name, own(name), card)]);
  rows.push(["S/N", number(star.snr, 0)], ["reduced \u03c7\u00b2", number(star.chi2, 2)]);
  rows.push(["pixels masked", `${(100 * star.masked_fraction).toFixed(1)} %`]);
  if (star.ra !== null && star.dec !== null) rows.push(["RA, Dec", `${number(star.ra, 4)}\u00b0, ${number(star.dec, 4)}\u00b0`]);
  if (star.cluster) rows.push(["cluster", star.cluster]);
  $("star-facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const doubts = star.in_domain ? [...star.warnings] : [whyOutside(own, card), ...star.warnings.filter((text) => !text.includes(OUT_OF_RANGE))];
  if (star.snr === null) doubts.push("it came without errors: p (same) is unknown");
  $("star-warnings").replaceChildren(...doubts.map((text) => make("li", {}, text)));
  $("store").hidden = !unstored;
  $("copy").hidden = unstored;
  $("store-id").value = unstored ? (star.star_id ?? "") : "";
  tell($("store-error"), null);
}

const OUT_OF_RANGE = " is outside the model's training range ";

/** Why the model does not know a star whose parameters `own(name)` gives. */
function whyOutside(own, card) {
  const strange = Object.entries(card.parameters).filter(([name, { min, max }]) => own(name) < min || own(name) > max);
  const reason = ([name, { min, max }]) => {
    const { name: text, decimals } = parameter(name, card);
    return `its ${text} of ${withUnit(name, own(name), card)} is not between ${number(min, decimals)} and ${withUnit(name, max, card)}`;
  };
  const reasons = strange.length ? strange.map(reason).join(", and ") : "its spectrum is unlike those that the model was made for";
  return `The model does not know this star, because ${reasons}. Its distances may be wrong, so no twin has a verdict.`;
}

/** What the table is of, in words. */
export function account(found, rank) {
  const missed = rank !== "distance" ? ", ranked among the 1,000 nearest" : "; a nearer one may have been missed";
  const among = `among ${found.searched.toLocaleString("en")} stars${found.exact ? "" : missed}`;
  const different = found.twins.filter((twin) => twin.verdict === "different").length;
  const dimmed = different ? `; ${different} of them different (dimmed)` : "";
  const order = { distance: "nearest", likelihood: "likeliest", p_same: "most alike" }[rank] ?? "nearest";
  const outside = found.twins.filter((twin) => !twin.in_domain).length;
  const strange = outside ? `; ${outside} outside the model's domain` : "";
  return `the ${found.twins.length} ${order} ${among}${dimmed}${strange}`;
}

/** What the plot's lines are; `moved`: the star is recast elsewhere. */
export function kind(moved, star) {
  if (moved) return "All spectra are drawn by the model. Dotted: the star at its own parameters.";
  if (!star.flux) return "The service stored no observed spectrum of this star: all spectra here are drawn by the model.";
  return "Grey: observed, normalised as the model sees it; below, observed minus model. All else is drawn by the model.";
}
