// Colours and plotly's layout, by the page's own style sheet, light or dark.

const style = () => getComputedStyle(document.documentElement);
export const colour = (name) => style().getPropertyValue(`--${name}`).trim();
export const MOST_DRAWN = 6;
export const twinColours = () => Array.from({ length: MOST_DRAWN }, (_, index) => colour(`t${index}`));

export const CONFIG = {
  displaylogo: false,
  displayModeBar: false,
  doubleClick: false,
  showTips: false,
};

export const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
export const touch = () => matchMedia("(pointer: coarse)").matches;

export function layout(extra) {
  return {
    paper_bgcolor: colour("panel"),
    plot_bgcolor: colour("panel"),
    font: { family: style().fontFamily || getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink") } },
    dragmode: touch() ? false : "zoom",
    ...extra,
  };
}

export const axis = (extra) => ({
  gridcolor: colour("grid"),
  linecolor: colour("rule"),
  zeroline: false,
  ticks: "outside",
  ticklen: 4,
  tickcolor: colour("rule"),
  showline: true,
  automargin: true,
  ...extra,
});

const watched = new WeakSet();

/** Let a plot follow the size of its element. */
export function watch(host) {
  if (watched.has(host)) return;
  watched.add(host);
  new ResizeObserver(() => host.offsetWidth && Plotly.Plots.resize(host)).observe(host);
}

/** A plot as a PNG's data URL, with its legend. */
export function picture(host) {
  const { width, height } = host.getBoundingClientRect();
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } };
  const figure = { data: host.data, layout: { ...host.layout, showlegend: true, legend } };
  return Plotly.toImage(figure, { format: "png", width: Math.max(width, 900), height: height + 40, scale: 2 });
}

/** Call `draw` when the reader's choice of light or dark changes. */
export function onTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
