// Numbers and names as they are shown.

export const PARAMETERS = {
  teff: { name: "Teff", unit: "K", decimals: 0, step: 10 },
  logg: { name: "log g", unit: "dex", decimals: 2, step: 0.01 },
  fe_h: { name: "[Fe/H]", unit: "dex", decimals: 2, step: 0.01 },
  snr: { name: "S/N", unit: "", decimals: 0, step: 1 },
};

/** How a parameter is called and shown; those beyond the usual ones come from the model's card. */
export function parameter(name, card) {
  const known = card?.parameters[name];
  return PARAMETERS[name] ?? { name, unit: known?.unit ?? "", decimals: 2, step: known ? tidy((known.max - known.min) / 200) : 0.01 };
}

const tidy = (step) => 10 ** Math.floor(Math.log10(step));

export function number(value, decimals) {
  if (value === null || value === undefined) return "\u2013";
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

const SUPERSCRIPT = { "-": "\u207b", 0: "\u2070", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3", 4: "\u2074", 5: "\u2075", 6: "\u2076", 7: "\u2077", 8: "\u2078", 9: "\u2079" };

/** A number that is small where it matters, as probabilities are: those that would round to 1 are "> 0.999". */
export function small(value) {
  if (value === null || value === undefined) return "\u2013";
  if (value >= 0.9995 && value < 1) return "> 0.999";
  if (value === 0 || value >= 0.001) return value.toFixed(3).replace(/\.000$/, "");
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa}\u00d710${[...String(Number(exponent))].map((sign) => SUPERSCRIPT[sign]).join("")}`;
}

export function withUnit(name, value, card) {
  const { unit, decimals } = parameter(name, card);
  return `${number(value, decimals)}${unit === "K" ? " K" : ""}`;
}

/** A parameter's name with its unit, as a column or an axis is called. */
export function titled(name, card) {
  const { name: text, unit } = parameter(name, card);
  return unit === "K" ? `${text} (K)` : text;
}

/** An element of the page. */
export function make(tag, properties = {}, ...children) {
  const { dataset, attributes, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Show an error in an element of the page; nothing for a request that was aborted. */
export function tell(element, error) {
  element.replaceChildren();
  if (!error || error.name === "AbortError") return;
  element.append(error.message);
  const detail = (error.detail ?? []).filter((line) => !error.message.includes(line));
  for (const line of detail) element.append(make("small", {}, line));
}
