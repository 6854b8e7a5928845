// The catalogue's latents on their two principal axes; the star and its twins light up.

import { axis, colour, CONFIG, dark, layout, twinColours, watch } from "./theme.js";
import { $, make, parameter, titled } from "./words.js";

const SCALE = {
  light: "Cividis",
  dark: [[0, "#5f86dd"], [0.25, "#8596bb"], [0.5, "#a8a79f"], [0.75, "#d2bf70"], [1, "#ffea46"]], // as light as a dark page needs
};
const LABELS = ["teff", "logg", "fe_h", "snr"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up"]; // of clusters, with each of the colours

/** `opened(star_id)` is called on a click on a star, `coloured(name)` on the choice of another label. */
export class LatentMap {
  constructor(content, chosen, { opened, coloured }) {
    Object.assign(this, { content, chosen, opened, lit: null, host: $("map-plot") });
    const labels = LABELS.map((name) => [name, parameter(name).name]);
    const elements = Object.keys(content.abundances).map((name) => [name, `[${name}/Fe]`]);
    for (const [value, text] of [["cluster", "cluster"], ...labels, ...elements]) $("colour").append(make("option", { value }, text));
    this.colourBy(chosen);
    $("colour").onchange = () => {
      this.colourBy($("colour").value);
      coloured(this.chosen);
      this.draw();
    };
    this.caption();
  }

  update(content) {
    this.content = content;
    this.caption();
    this.draw();
  }

  /** Without a name by cluster, where stars have one. */
  colourBy(name) {
    const usual = this.content.points.cluster.some(Boolean) ? "cluster" : "fe_h";
    this.chosen = [...$("colour").options].some((option) => option.value === name) ? name : usual;
    $("colour").value = this.chosen;
  }

  caption() {
    const { stars, points } = this.content;
    const drawn = points.star_id.length;
    const dimensions = this.content.mean.length;
    const count = drawn < stars ? `${drawn.toLocaleString("en")} of ${stars.toLocaleString("en")} stars, drawn at random` : stars === 1 ? "1 star" : `${stars.toLocaleString("en")} stars`;
    $("map-note").textContent = drawn ? `${count}, on two of ${dimensions} dimensions: neighbours here need not be twins. A click opens a star; [X/Fe] is read out of the latent.` : "No star is stored yet.";
  }

  /** Where a latent stands on the map. */
  project(latent) {
    const { axes, mean } = this.content;
    return axes.map((own) => own.reduce((sum, value, index) => sum + value * (latent[index] - mean[index]), 0));
  }

  /** Light up a star {label, latent} and its twins [{star_id, latent, order}]; null: none. */
  light(lit) {
    this.lit = lit;
    this.draw();
  }

  draw() {
    const { explained } = this.content;
    const traces = [...(this.chosen === "cluster" ? this.clusters() : this.values()), ...(this.lit ? this.lights() : [])];
    const percent = (number) => `principal axis ${number + 1} (${(100 * explained[number]).toFixed(0)} % of the variance)`;
    const plan = layout({
      margin: { l: 10, r: 10, t: 8, b: 10 },
      xaxis: axis({ title: { text: percent(0), standoff: 8 } }),
      yaxis: axis({ title: { text: percent(1), standoff: 6 }, scaleanchor: "x", scaleratio: 1 }),
      legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: { size: 11 } },
    });
    Plotly.react(this.host, traces, plan, { ...CONFIG, doubleClick: "reset" });
    watch(this.host);
    if (!this.listens) {
      this.listens = true;
      this.host.on("plotly_click", ({ points: [hit] }) => hit.text && this.opened(hit.text));
    }
  }

  /** The stars, coloured by a number. */
  values() {
    const { points, abundances } = this.content;
    const values = points[this.chosen] ?? abundances[this.chosen];
    const title = LABELS.includes(this.chosen) ? titled(this.chosen) : `[${this.chosen}/Fe]`;
    const known = values.filter((value) => value !== null).sort((left, right) => left - right);
    const at = (fraction) => known[Math.round(fraction * (known.length - 1))];
    return [
      {
        type: "scatter", mode: "markers", x: points.x, y: points.y, text: points.star_id, customdata: values,
        marker: {
          size: 5, opacity: this.lit ? 0.55 : 0.85, color: values, colorscale: SCALE[dark() ? "dark" : "light"], cmin: at(0.01), cmax: at(0.99),
          showscale: known.length > 0, colorbar: { title: { text: title, side: "right" }, thickness: 12, outlinewidth: 0, tickfont: { size: 11 } },
        },
        hovertemplate: `%{text}<br>${title} %{customdata}<extra></extra>`, showlegend: false,
      },
    ];
  }

  /** The stars, those of each of the largest clusters in a colour and a symbol of their own. */
  clusters() {
    const { points } = this.content;
    const members = Map.groupBy(points.star_id.keys(), (row) => points.cluster[row] ?? "");
    const colours = twinColours();
    const largest = [...members.keys()].filter(Boolean).sort((left, right) => members.get(right).length - members.get(left).length || (left < right ? -1 : 1));
    const named = largest.slice(0, colours.length * SYMBOLS.length);
    const rest = [...members.keys()].filter((name) => !named.includes(name)).flatMap((name) => members.get(name));
    const trace = (name, rows, marker) => ({
      type: "scatter", mode: "markers", name, x: rows.map((row) => points.x[row]), y: rows.map((row) => points.y[row]),
      text: rows.map((row) => points.star_id[row]), customdata: rows.map((row) => points.cluster[row] ?? "no cluster"),
      marker: { size: 7, opacity: 0.85, ...marker }, hovertemplate: "%{text}<br>%{customdata}<extra></extra>", showlegend: true,
    });
    return [
      ...(rest.length ? [trace(named.length ? "others" : "no cluster", rest, { color: colour("observed"), size: 5 })] : []),
      ...named.map((name, order) => trace(name, members.get(name), { color: colours[order % colours.length], symbol: SYMBOLS[Math.floor(order / colours.length)] })),
    ];
  }

  lights() {
    const colours = twinColours();
    const points = this.lit.twins.map((twin) => this.project(twin.latent));
    const [x, y] = this.project(this.lit.latent);
    return [
      {
        type: "scatter", mode: "markers", name: "twins", x: points.map(([own]) => own), y: points.map(([, own]) => own),
        text: this.lit.twins.map((twin) => twin.star_id), hovertemplate: "%{text}<extra>twin</extra>",
        marker: {
          size: 11, color: this.lit.twins.map((twin) => (twin.order >= 0 && this.chosen !== "cluster" ? colours[twin.order] : "rgba(0,0,0,0)")),
          line: { width: 1.8, color: colour("ink") },
        },
      },
      {
        type: "scatter", mode: "markers", name: this.lit.label, x: [x], y: [y], hovertemplate: `${this.lit.label}<extra>the star</extra>`,
        marker: { symbol: "star", size: 17, color: colour("star"), line: { width: 1.6, color: colour("panel") } },
      },
    ];
  }
}
