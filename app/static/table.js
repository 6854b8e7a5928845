// The twins in a table that sorts by any column, with a box for each that is drawn.

import { MOST_DRAWN, twinColours } from "./theme.js";
import { $, make, number, parameter, small, titled } from "./words.js";

const HELP = {
  distance: "Euclidean distance of the latents. True twins at S/N 100 lie near the square root of the number of latents.",
  p_same: "How often stars of the same chemistry, observed with these errors, lie at least this far apart. A p-value, not the probability of being twins; empty where a star came without errors.",
  verdict: "What p (same) says: different below 0.01, same within noise from there on. Cannot tell where p (same) is unknown, or the model does not know one of the two stars.",
  log_likelihood_ratio: "Logarithm of the likelihood of one chemistry for both over a chemistry for each.",
  doppelganger_rate: "Fraction of random pairs of the catalogue at most this far apart; known once the catalogue has 1,000 stars.",
  in_domain: "Whether the model knows such stars. Outside of its domain a latent, and so a distance, may be wrong.",
  rms: "Root mean square of the twin as drawn minus the star as drawn, over all pixels, in units of the continuum. For twins that are drawn.",
  snr: "The twin's median signal-to-noise per pixel; its parameters, too, are its own, as they came with it.",
};

function columns(twins, card) {
  const extra = Object.keys(card.parameters).filter((name) => !["teff", "logg", "fe_h"].includes(name));
  const plain = (name) => ({
    name, title: titled(name, card),
    value: (twin) => twin[name] ?? twin.parameters?.[name] ?? null,
    text: (value) => number(value, parameter(name, card).decimals),
  });
  const own = (name, title, text) => ({ name, title, text, value: (twin) => twin[name] ?? null });
  const known = (name) => twins.some((twin) => (twin[name] ?? null) !== null);
  const byLikelihood = twins.some((twin) => twin.log_likelihood_ratio !== undefined);
  return [
    { name: "star_id", title: "Star", value: (twin) => twin.star_id },
    own("distance", "Distance", (value) => number(value, 2)),
    own("p_same", "p (same)", small),
    { ...own("verdict", "Verdict", String), words: true },
    ...(byLikelihood ? [own("log_likelihood_ratio", "ln LR", (value) => number(value, 1))] : []),
    ...(known("doppelganger_rate") ? [own("doppelganger_rate", "Doppelg\u00e4nger rate", small)] : []),
    own("rms", "rms residual", (value) => number(value, 4)),
    ...["teff", "logg", "fe_h", ...extra, "snr"].map(plain),
    ...(known("cluster") ? [{ ...own("cluster", "Cluster", (value) => value ?? "\u2013"), words: true }] : []),
    own("in_domain", "Domain", (value) => (value ? "inside" : "outside")),
  ];
}

/** `sorted(key)` is called on a click on a header, `drawn(star_id, on)` on a box, `opened(star_id)` on a star. */
export class TwinTable {
  constructor(card, { sorted, drawn, opened }) {
    Object.assign(this, { card, sorted, drawn, opened, twins: [] });
  }

  /** Show twins [{..., rms}] in the order of `sort` ("distance", "-teff"), those of `show` [star_id] drawn. */
  render(twins, sort, show) {
    this.twins = twins;
    const all = columns(twins, this.card);
    const descending = sort.startsWith("-");
    const by = all.find((column) => column.name === sort.replace(/^-/, "")) ?? all[1];
    this.head(all, by, descending);
    const focused = document.activeElement?.dataset?.twin;
    const rows = [...twins].sort((left, right) => compare(by.value(left), by.value(right), descending));
    const cells = rows.map((twin) => this.row(twin, all, show));
    const none = make("tr", {}, make("td", { className: "empty", colSpan: all.length + 1 }, "No star of the catalogue passes the filters."));
    $("twins-body").replaceChildren(...(cells.length ? cells : [none]));
    if (focused) $("twins-body").querySelector(`input[data-twin="${CSS.escape(focused)}"]`)?.focus();
    const help = all.filter((column) => HELP[column.name]).flatMap((column) => [make("dt", {}, column.title), make("dd", {}, HELP[column.name])]);
    $("twins-help").replaceChildren(...help);
  }

  head(all, by, descending) {
    const focused = document.activeElement?.dataset?.column;
    const cell = (column) => {
      const now = column.name === by.name ? (descending ? "descending" : "ascending") : "none";
      const next = column.name === by.name && !descending ? `-${column.name}` : column.name;
      const button = make("button", { type: "button", title: HELP[column.name] ?? "", dataset: { column: column.name }, onclick: () => this.sorted(next) }, column.title);
      return make("th", { scope: "col", className: column.words ? "words" : "", attributes: { "aria-sort": now } }, button);
    };
    $("twins-head").replaceChildren(make("th", { scope: "col" }, "Drawn"), ...all.map(cell));
    if (focused) $("twins-head").querySelector(`[data-column="${focused}"]`)?.focus();
  }

  row(twin, all, show) {
    const order = show.indexOf(twin.star_id);
    const box = make("input", {
      type: "checkbox", checked: order >= 0, disabled: order < 0 && show.length >= MOST_DRAWN,
      dataset: { twin: twin.star_id }, attributes: { "aria-label": `draw ${twin.star_id}` },
      onchange: (event) => this.drawn(twin.star_id, event.target.checked),
    });
    const swatch = make("span", { className: "swatch", attributes: { "aria-hidden": "true" } });
    if (order >= 0) swatch.style.background = twinColours()[order];
    const link = make("a", { href: `?star=${encodeURIComponent(twin.star_id)}` }, twin.star_id);
    link.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.opened(twin.star_id);
    };
    const values = all.slice(1).map((column) => make("td", { className: column.words ? "words" : "" }, column.text(column.value(twin))));
    return make("tr", { className: twin.verdict === "different" ? "apart" : "" }, make("td", {}, make("label", {}, box, swatch)), make("td", {}, link), ...values);
  }
}

/** What is unknown comes last, either way. */
function compare(left, right, descending) {
  if (left === null || right === null) return (left === null) - (right === null);
  const order = left < right ? -1 : left > right ? 1 : 0;
  return descending ? -order : order;
}
