// Which twins to look for: how many, in what order, within which limits.

import { FILTERS } from "./state.js";
import { $, make, parameter } from "./words.js";

/** `apply({k, rank, filters})` is called with what was chosen. */
export function chooseTwins(apply) {
  const input = (name, label) => make("input", { id: name, inputMode: "decimal", attributes: { "aria-label": label } });
  const word = (text) => make("span", { className: "note" }, text);
  for (const name of ["teff", "logg", "fe_h"]) {
    const text = parameter(name).name;
    $("ranges").append(word(text), input(`${name}_min`, `${text}, at least`), word("to"), input(`${name}_max`, `${text}, at most`));
  }
  $("filter-form").onsubmit = (event) => {
    event.preventDefault();
    apply(chosen());
  };
  $("filter-form").onreset = () => setTimeout(() => apply(chosen()));
}

function chosen() {
  const given = FILTERS.map((name) => [name, $(name).value.trim().replace("\u2212", "-")]);
  return { k: Number($("k").value), rank: $("rank").value, filters: Object.fromEntries(given.filter(([, value]) => value)) };
}

/** Show a state. */
export function showChoice({ k, rank, filters }) {
  $("k").value = String(k);
  if ($("k").selectedIndex < 0) $("k").append(make("option", { selected: true }, String(k)));
  $("rank").value = rank;
  for (const name of FILTERS) $(name).value = filters[name] ?? "";
}
