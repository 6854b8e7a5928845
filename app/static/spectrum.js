// The plot that convinces: star and twins at the same parameters, and below how far the twins are from the star.

import { axis, colour, CONFIG, layout, twinColours, watch } from "./theme.js";
import { LINES } from "./lines.js";
import { $, make, number } from "./words.js";

const DETECTORS = ["blue", "green", "red"];
const LABELLED = 260; // Angstrom: a wider view has thinner lines, and no names of elements
const FIRST = [15730, 15790];
const NARROWEST = 4;

/** Wires the plot's controls; `moved(view)` is called with the wavelengths in view. */
export class SpectrumPlot {
  constructor(card, moved) {
    this.detectors = card.grid.detectors;
    this.span = [card.grid.min, card.grid.max];
    this.moved = moved;
    this.shown = null;
    this.view = this.first();
    this.host = $("plot");
    this.controls();
  }

  /** The view when nothing else is asked for: Mg lines, if the model sees them. */
  first() {
    return FIRST[0] >= this.span[0] && FIRST[1] <= this.span[1] ? FIRST : this.span;
  }

  controls() {
    $("left").onclick = () => this.step(-0.6);
    $("right").onclick = () => this.step(0.6);
    $("closer").onclick = () => this.zoom(0.5);
    $("wider").onclick = () => this.zoom(2);
    const lines = LINES.filter(([, wavelength]) => wavelength > this.span[0] && wavelength < this.span[1]);
    $("line").append(make("option", { value: "" }, "go to\u2026"));
    for (const [element, wavelength] of lines) {
      $("line").append(make("option", { value: wavelength }, `${element} I ${wavelength.toFixed(1)}`));
    }
    $("line").onchange = () => {
      const centre = Number($("line").value);
      if (centre) this.look([centre - 25, centre + 25]);
      $("line").value = "";
    };
    if (this.detectors.length > 1) {
      this.detectors.forEach((_, index) => {
        const name = this.detectors.length === 3 ? DETECTORS[index] : `detector ${index + 1}`;
        $("detectors").append(make("button", { type: "button", onclick: () => this.look(this.edges(index)) }, name));
      });
    }
    $("detectors").append(make("button", { type: "button", onclick: () => this.look(this.span) }, "all"));
  }

  /** The first and last wavelength of a detector. */
  edges(index) {
    const [start, stop] = this.detectors[index];
    return this.shown ? [this.shown.wavelength[start], this.shown.wavelength[stop - 1]] : this.span;
  }

  step(fraction) {
    const width = this.view[1] - this.view[0];
    const start = Math.min(Math.max(this.view[0] + fraction * width, this.span[0]), this.span[1] - width);
    this.look([start, start + width]);
  }

  zoom(factor) {
    const centre = (this.view[0] + this.view[1]) / 2;
    const half = Math.max((factor * (this.view[1] - this.view[0])) / 2, NARROWEST / 2);
    this.look([Math.max(centre - half, this.span[0]), Math.min(centre + half, this.span[1])]);
  }

  look(view) {
    this.view = view;
    this.moved(view);
    this.draw();
  }

  /**
   * Show spectra on one grid: `wavelength`, `star` {label, flux}, `twins` [{label, flux, order}], and where they
   * are known `observed` and `before` (the star at its own parameters, when it is recast elsewhere).
   */
  show(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { shown } = this;
    if (!shown) return;
    const runs = this.runs();
    const colours = twinColours();
    const thin = this.view[1] - this.view[0] > LABELLED ? 0.6 : 1;
    const minus = (left, right) => left.map((value, index) => (value === null || right[index] === null ? null : value - right[index]));
    const traces = [];
    const trace = (y, name, line, below, extra = {}) =>
      traces.push({
        ...this.cut(runs, y), name, type: "scatter", mode: "lines", line: { ...line, width: thin * line.width },
        yaxis: below ? "y2" : "y", showlegend: !below,
        hovertemplate: below ? "%{y:+.4f}" : "%{y:.4f}", ...extra,
      });
    if (shown.observed) {
      trace(shown.observed, "observed", { color: colour("observed"), width: 1 }, false);
      trace(minus(shown.observed, shown.fit), "observed \u2212 model", { color: colour("observed"), width: 0.8 }, true, { opacity: 0.6 });
    }
    if (shown.before) {
      trace(shown.before, "star, its own parameters", { color: colour("observed"), width: 1.2, dash: "dot" }, false);
    }
    for (const twin of shown.twins) {
      trace(twin.flux, twin.label, { color: colours[twin.order], width: 1.4 }, false);
    }
    trace(shown.star.flux, shown.star.label, { color: colour("star"), width: 1.9 }, false);
    for (const twin of shown.twins) {
      trace(minus(twin.flux, shown.star.flux), `${twin.label} \u2212 star`, { color: colours[twin.order], width: 1.2 }, true);
    }
    const above = traces.filter((one) => one.yaxis === "y").map((one) => one.y);
    const below = traces.filter((one) => one.yaxis === "y2" && one.opacity === undefined).map((one) => one.y);
    const plan = this.layout(this.fluxRange(runs, above), this.residualRange(runs, below));
    Plotly.react(this.host, traces, plan, CONFIG);
    if (!this.listens) {
      this.listens = true;
      this.host.on("plotly_relayout", (change) => {
        const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
        if (low !== undefined && high - low >= NARROWEST / 4) this.look([Math.max(low, this.span[0]), Math.min(high, this.span[1])]);
      });
      this.host.on("plotly_doubleclick", () => this.zoom(4));
    }
    watch(this.host);
    this.legend(traces.filter((one) => one.yaxis === "y"));
    this.marks();
  }

  legend(traces) {
    const rmsOf = (name) => this.shown.twins.find((twin) => twin.label === name)?.rms;
    const entry = ({ name, line }) => {
      const sample = make("span", { className: "key", attributes: { "aria-hidden": "true" } });
      Object.assign(sample.style, { borderTopColor: line.color, borderTopStyle: line.dash ? "dotted" : "solid" });
      const residual = rmsOf(name) === undefined ? [] : [make("small", {}, `rms ${number(rmsOf(name), 4)}`)];
      return make("li", {}, sample, name, ...residual);
    };
    const star = traces[traces.length - 1];
    const names = this.shown.twins.map((twin) => twin.label);
    const twins = traces.filter((one) => names.includes(one.name));
    const rest = traces.filter((one) => one !== star && !names.includes(one.name));
    $("legend").replaceChildren(...[star, ...twins, ...rest].map(entry));
  }

  /** Runs of pixels [start, stop) within the view and as far again on either side, one per detector. */
  runs() {
    const { wavelength } = this.shown;
    const width = this.view[1] - this.view[0];
    const [low, high] = [this.view[0] - width / 2, this.view[1] + width / 2];
    return this.detectors
      .map(([start, stop]) => {
        let [first, last] = [start, stop];
        while (first < stop && wavelength[first] < low) first += 1;
        while (last > first && wavelength[last - 1] > high) last -= 1;
        return [first, last];
      })
      .filter(([first, last]) => last > first);
  }

  /** A spectrum's pixels in these runs; nothing is drawn across a gap between detectors. */
  cut(runs, flux) {
    const x = [];
    const y = [];
    for (const [first, last] of runs) {
      x.push(...this.shown.wavelength.slice(first, last), null);
      y.push(...flux.slice(first, last), null);
    }
    return { x, y };
  }

  /** All values in view of spectra that were cut. */
  inView(runs, spectra) {
    const wavelengths = runs.flatMap(([first, last]) => [...this.shown.wavelength.slice(first, last), null]);
    const values = [];
    wavelengths.forEach((wavelength, index) => {
      if (wavelength === null || wavelength < this.view[0] || wavelength > this.view[1]) return;
      for (const spectrum of spectra) if (spectrum[index] !== null) values.push(spectrum[index]);
    });
    return values.sort((left, right) => left - right);
  }

  fluxRange(runs, spectra) {
    const values = this.inView(runs, spectra);
    if (!values.length) return [0.4, 1.1];
    const at = (fraction) => values[Math.round(fraction * (values.length - 1))];
    const [low, high] = [at(0.0005), at(0.9995)];
    const margin = 0.06 * (high - low) + 0.005;
    return [low - margin, high + 3 * margin];
  }

  residualRange(runs, spectra) {
    const values = this.inView(runs, spectra).map(Math.abs).sort((left, right) => left - right);
    const largest = values.length ? values[Math.round(0.998 * (values.length - 1))] : 0;
    const half = Math.max(1.25 * largest, 0.01);
    return [-half, half];
  }

  layout(fluxRange, residualRange) {
    const lines = LINES.filter(([, wavelength]) => wavelength > this.view[0] && wavelength < this.view[1]);
    const labelled = this.view[1] - this.view[0] <= LABELLED;
    return layout({
      margin: { l: 10, r: 10, t: 8, b: 10 },
      hovermode: "x unified",
      hoversubplots: "axis",
      showlegend: false,
      xaxis: axis({
        range: [...this.view], anchor: "y2", hoverformat: ".2f", tickformat: ",d", unifiedhovertitle: { text: "%{x:.2f} \u00c5" },
        title: { text: "vacuum wavelength, rest frame (\u00c5)", standoff: 8 },
      }),
      yaxis: axis({ domain: [0.36, 1], range: fluxRange, fixedrange: true, title: { text: "flux / continuum", standoff: 6 }, tickformat: ".2~f" }),
      yaxis2: axis({
        domain: [0, 0.3], range: residualRange, fixedrange: true, zeroline: true, zerolinecolor: colour("soft"),
        title: { text: "twin \u2212 star", standoff: 6 }, tickformat: "+.3~f", nticks: 5,
      }),
      shapes: lines.map(([, wavelength]) => ({
        type: "line", x0: wavelength, x1: wavelength, yref: "paper", y0: 0.955, y1: 0.985,
        line: { color: colour("soft"), width: 1 },
      })),
      annotations: labelled
        ? lines.map(([element, wavelength]) => ({
            x: wavelength, yref: "paper", y: 0.985, yanchor: "bottom", yshift: -1, text: element, showarrow: false,
            font: { size: 11, color: colour("soft") },
          }))
        : [],
    });
  }

  /** What the buttons say of the view. */
  marks() {
    const same = (left, right) => Math.abs(left[0] - right[0]) < 1 && Math.abs(left[1] - right[1]) < 1;
    [...$("detectors").children].forEach((button, index) => {
      const edges = index < this.detectors.length && this.detectors.length > 1 ? this.edges(index) : this.span;
      button.setAttribute("aria-pressed", same(this.view, edges));
    });
    const names = this.shown.twins.map((twin) => `${twin.label}, rms residual ${number(twin.rms, 4)}`);
    $("plot-note").textContent =
      `${this.shown.star.label} and ${names.length} twins, ${this.view.map((edge) => edge.toFixed(0)).join(" to ")} Angstrom. ${names.join("; ")}`;
  }
}

/** Root mean square difference of two spectra. */
export function rms(left, right) {
  const differences = left.flatMap((value, index) => (value === null || right[index] === null ? [] : [value - right[index]]));
  return Math.sqrt(differences.reduce((sum, value) => sum + value ** 2, 0) / differences.length);
}
