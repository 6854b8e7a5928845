// A slider and a number for each parameter that the model is conditioned on.

import { $, make, parameter } from "./words.js";

/** `changed(to)` is called with the parameters that were moved away from the star's own. */
export class Sliders {
  constructor(card, changed) {
    this.card = card;
    this.names = Object.keys(card.parameters);
    this.own = {};
    this.inputs = {};
    this.changed = changed;
    for (const name of this.names) $("sliders").append(this.build(name));
    $("reset").onclick = () => {
      this.set(this.own, {});
      this.changed({});
    };
  }

  build(name) {
    const { min, max } = this.card.parameters[name];
    const shape = parameter(name, this.card);
    const shown = (value, up) => Math[up ? "floor" : "ceil"](value / shape.step + (up ? 0.5 : -0.5)) * shape.step;
    const range = make("input", {
      type: "range", id: `to-${name}`, min: shown(min, true).toFixed(shape.decimals), max: shown(max, false).toFixed(shape.decimals),
      step: shape.step, oninput: () => this.move(name, range.value),
    });
    const field = make("input", {
      type: "number", step: "any", attributes: { "aria-label": `${shape.name}, as a number` }, inputMode: "decimal",
      oninput: () => field.value !== "" && field.validity.valid && this.move(name, field.value, field),
      onchange: () => this.write(name, this.value(name)),
    });
    const row = make("div", { className: "slider" }, make("label", { htmlFor: range.id }, shape.name), range, field);
    this.inputs[name] = { range, field, row, decimals: shape.decimals };
    return row;
  }

  value(name) {
    return this.to[name] ?? this.own[name];
  }

  /** Show the star's own parameters, or instead those of `to`. */
  set(own, to) {
    this.own = own;
    this.to = { ...to };
    for (const name of this.names) this.write(name, this.value(name));
    $("reset").disabled = Object.keys(this.to).length === 0;
  }

  write(name, value, typedIn) {
    const { range, field, row, decimals } = this.inputs[name];
    const { min, max } = this.card.parameters[name];
    range.value = value;
    if (field !== typedIn) field.value = value.toFixed(decimals);
    const edge = 1e-3 * (max - min);
    const outside = value < min - edge || value > max + edge;
    row.classList.toggle("outside", outside);
    range.setAttribute("aria-valuetext", `${value.toFixed(decimals)}${outside ? ", outside the training range" : ""}`);
  }

  move(name, text, typedIn) {
    this.to[name] = Number(text);
    this.write(name, this.to[name], typedIn);
    $("reset").disabled = false;
    this.changed({ ...this.to });
  }
}
