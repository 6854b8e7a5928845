// What the page shows, as its address states it: a link opens the same view.

export const FILTERS = ["teff_min", "teff_max", "logg_min", "logg_max", "fe_h_min", "fe_h_max", "snr_min", "max_distance", "fe_h_within", "in_domain", "cluster", "not_cluster"];
export const DEFAULTS = { k: 10, rank: "distance", mode: "recast", residual: "", colour: "" };

/** How the table is sorted unless the reader sorts it: as the service ranked. */
export const usualSort = (rank) => ({ likelihood: "-log_likelihood_ratio", p_same: "-p_same" })[rank] ?? "distance";

/** The state of an address's query; `to` are the parameters recast to, `show` the twins drawn. */
export function parse(search) {
  const query = new URLSearchParams(search);
  const ids = (name) => (query.get(name) ?? "").replaceAll(" ", "+"); // no id has a blank, many a plus typed as it is
  const state = { star: ids("star"), filters: {}, to: {}, show: null, view: null };
  for (const [name, usual] of Object.entries(DEFAULTS)) state[name] = query.get(name) ?? usual;
  state.sort = query.get("sort") ?? usualSort(state.rank);
  state.k = Number(state.k) || DEFAULTS.k;
  for (const name of FILTERS) if (query.get(name)) state.filters[name] = query.get(name);
  for (const [name, value] of query) {
    if (name.startsWith("to_") && Number.isFinite(Number(value))) state.to[name.slice(3)] = Number(value);
  }
  if (query.has("show")) state.show = ids("show").split(",").filter(Boolean);
  const view = (query.get("view") ?? "").split("-").map(Number);
  if (view.length === 2 && view[0] < view[1]) state.view = view;
  return state;
}

export function address(state) {
  const query = new URLSearchParams();
  if (state.star) query.set("star", state.star);
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (String(state[name]) !== String(usual)) query.set(name, state[name]);
  }
  if (state.sort !== usualSort(state.rank)) query.set("sort", state.sort);
  for (const [name, value] of Object.entries(state.filters)) query.set(name, value);
  for (const [name, value] of Object.entries(state.to)) query.set(`to_${name}`, value);
  if (state.show) query.set("show", state.show.join(","));
  if (state.view) query.set("view", state.view.map((edge) => edge.toFixed(1)).join("-"));
  const text = query.toString();
  return text ? `?${text}` : location.pathname;
}
