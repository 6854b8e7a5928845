// Colours and plotly's layout, by the page's own style sheet, light or dark.

const style = () => getComputedStyle(document.documentElement);
export const colour = (name) => style().getPropertyValue(`--${name}`).trim();
export const MOST_DRAWN = 6;
export const twinColours = () => Array.from({ length: MOST_DRAWN }, (_, place) => colour(`t${place}`));

export const CONFIG = {
  displaylogo: false,
  responsive: true,
  displayModeBar: false,
  doubleClick: false,
};

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

/** Call `draw` when the reader's choice of light or dark changes. */
export function onTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
