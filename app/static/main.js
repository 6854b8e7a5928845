// The explorer: what is asked of the service when, and where the responses go.

import * as api from "./api.js";
import { account, kind, showFacts } from "./facts.js";
import { chooseTwins, showChoice } from "./filters.js";
import { findStar } from "./find.js";
import { keyDialog } from "./key.js";
import { LatentMap } from "./map.js";
import { rms, SpectrumPlot } from "./spectrum.js";
import { Sliders } from "./sliders.js";
import { address, DEFAULTS, parse, usualSort } from "./state.js";
import { TwinTable } from "./table.js";
import { MOST_DRAWN, onTheme, picture } from "./theme.js";
import { uploadSpectrum } from "./upload.js";
import { $, make, tell } from "./words.js";

const DRAWN_AT_FIRST = 3;
const GREETING = "Open a star to see its chemical twins: stars made of the same stuff, whatever their temperature and gravity.";
const FIRST_AMONG = 50; // stars that the first one is chosen from
const PAUSE_MS = 60; // of a slider, before the service is asked

let state = parse(location.search);
let card;
let plot;
let sliders;
let table;
let map;
/** The star that is open: {star, upload, twins, latents}; null where none is. */
let open = null;
let opening = new AbortController();
let recasting = new AbortController();
let timer;

const status = (text) => ($("status").textContent = text);
const conditioned = () => Object.keys(card.parameters);
const own = (name) => open.star[name] ?? open.star.parameters?.[name];
const starLabel = () => open.star.star_id ?? "the spectrum";

// ---------------------------------------------------------------- the address

function remember(how = "replaceState") {
  history[how](null, "", address(state));
}

addEventListener("popstate", () => {
  state = parse(location.search);
  showControls();
  map?.colourBy(state.colour);
  openState();
});

// ---------------------------------------------------------------- opening a star

/** Open the star of the state; without one, close. */
async function openState() {
  opening.abort();
  recasting.abort();
  opening = new AbortController();
  tell($("find-error"), null);
  if (!state.star) return close();
  if (document.activeElement !== $("star")) $("star").value = state.star; // nobody is typing there
  try {
    status(`Looking up ${state.star}\u2026`);
    const star = await api.getJson(`stars/${encodeURIComponent(state.star)}/spectrum`, opening.signal);
    await show({ star });
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    close();
    tell($("find-error"), error);
  }
  return undefined;
}

function openStar(starId) {
  state = { ...state, star: starId, to: {}, show: null };
  remember("pushState");
  return openState();
}

async function openUpload(upload) {
  opening.abort();
  recasting.abort();
  opening = new AbortController();
  state = { ...state, star: "", to: {}, show: null };
  remember("pushState");
  $("star").value = "";
  await show({ star: upload.star, upload });
}

function close() {
  open = null;
  for (const part of ["facts", "spectra", "twins"]) $(part).hidden = true;
  $("main").classList.remove("open");
  document.title = "Chemtwin explorer";
  status(GREETING);
  map?.light(null);
}

/** Show a star: facts at once, then twins, then the plot. */
async function show(opened) {
  const { signal } = opening;
  open = { ...opened, twins: [], latents: {} };
  document.title = `${starLabel()} \u2013 Chemtwin explorer`;
  for (const part of ["facts", "spectra", "twins"]) $(part).hidden = false;
  $("main").classList.add("open");
  showFacts(open.star, Boolean(open.upload), card);
  const to = Object.fromEntries(Object.entries(state.to).filter(([name]) => conditioned().includes(name)));
  state.to = to;
  $("residual").disabled = Boolean(open.upload) || !open.star.flux;
  sliders.set(Object.fromEntries(conditioned().map((name) => [name, own(name)])), to);
  plot.view = state.view ?? plot.first();
  await lookForTwins(signal);
}

function twinQuery(format) {
  const { k, rank, filters } = state;
  const asked = { k, rank: rank === "distance" ? "" : rank, ...filters, format };
  if (!open.upload) return `twins/${encodeURIComponent(open.star.star_id)}${api.query(asked)}`;
  return `twins${api.query({ ...asked, ...open.upload.labels })}`;
}

async function lookForTwins(signal) {
  status("Looking for twins\u2026");
  tell($("twins-error"), null);
  tell($("filter-error"), null);
  let found = null;
  try {
    found = open.upload ? await api.postFits(twinQuery(), open.upload.file, signal) : await api.getJson(twinQuery(), signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tell(error.code === "invalid_request" ? $("filter-error") : $("twins-error"), error);
    if (error.code === "invalid_request") $("filters").open = true;
  }
  open.twins = (found?.twins ?? []).map((twin) => ({ ...twin, rms: null }));
  if (state.show) state.show = state.show.filter((id) => open.twins.some((twin) => twin.star_id === id)).slice(0, MOST_DRAWN);
  $("twins-note").textContent = found ? account(found, state.rank) : "";
  renderTable();
  if (!found) $("twins-body").replaceChildren();
  await Promise.all([recast(), light(signal)]);
  status(found ? `${starLabel()}: the ${found.twins.length} nearest stars.` : "");
}

const drawn = () => state.show ?? open.twins.slice(0, DRAWN_AT_FIRST).map((twin) => twin.star_id);

function renderTable() {
  if (open) table.render(open.twins, state.sort, drawn());
}

// ---------------------------------------------------------------- the plot

/** The star in a body of /recast: by its id, or by its latent. */
function source() {
  if (!open.upload) return { star_id: open.star.star_id };
  const { latent, teff, logg, fe_h, parameters } = open.star;
  return { star: { latent, from: { teff, logg, fe_h, ...(parameters ? { parameters } : {}) } } };
}

/** Whether recasts carry each star's own residual: of stars whose spectra are stored. */
const residual = () => state.residual === "true" && !open.upload && Boolean(open.star.flux);

/** What twins are recast to: the star's parameters, each with its own [Fe/H] unless that slider was moved. */
function toOfTwins(target) {
  if (state.mode === "own") return {};
  const { fe_h, ...others } = target;
  return "fe_h" in state.to ? target : others;
}

/** Recast the star to the sliders' parameters and the drawn twins with it, and draw them. */
async function recast() {
  recasting.abort();
  recasting = new AbortController();
  const { signal } = recasting;
  $("plot").setAttribute("aria-busy", "true");
  const begun = open;
  const ids = drawn();
  const target = { ...Object.fromEntries(conditioned().map((name) => [name, own(name)])), ...state.to };
  try {
    const asked = (stars, to) => api.postJson("recast", { ...stars, to: api.toBody(to), residual: residual() }, signal);
    const [star, twins] = await Promise.all([
      asked({ ...source(), star_ids: [] }, target),
      ids.length ? asked({ star_ids: ids }, toOfTwins(target)) : null,
    ]);
    if (open !== begun) return;
    draw(star, twins?.results ?? [], ids);
  } catch (error) {
    tell($("recast-error"), error);
  } finally {
    if (!signal.aborted) $("plot").removeAttribute("aria-busy");
  }
}

function draw(recasts, twins, ids) {
  const [drawnStar] = recasts.results;
  tell($("recast-error"), null);
  if (drawnStar.error) return tell($("recast-error"), drawnStar.error);
  const moved = Object.keys(state.to).length > 0;
  const { star } = open;
  const lines = [];
  for (const twin of open.twins) twin.rms = null;
  twins.forEach((twin, order) => {
    if (twin.error) return;
    const row = open.twins.find((one) => one.star_id === ids[order]);
    if (row) row.rms = rms(twin.flux, drawnStar.flux);
    lines.push({ label: ids[order], flux: twin.flux, order, rms: row?.rms });
  });
  plot.show({
    wavelength: recasts.wavelength,
    star: { label: moved ? `${starLabel()}, recast` : starLabel(), flux: drawnStar.flux },
    twins: lines,
    observed: moved ? null : star.flux,
    fit: star.reconstruction,
    before: moved ? star.reconstruction : null,
  });
  const elsewhere = JSON.stringify(drawnStar.computed_at) !== JSON.stringify(drawnStar.to);
  const warnings = drawnStar.warnings.filter((text) => (moved || elsewhere) && !text.startsWith("of the star itself"));
  $("recast-warnings").replaceChildren(...warnings.map((text) => make("li", {}, text)));
  $("kind").textContent = kind(moved, star);
  $("spectra-title").textContent =
    state.mode === "own" ? "Star and twins, each at its own parameters" : togetherTitle();
  renderTable();
  return undefined;
}

function togetherTitle() {
  const own = conditioned().includes("fe_h") && !("fe_h" in state.to);
  return own ? "Star and twins at the same Teff and log g, each at its own [Fe/H]" : "Star and twins at the same parameters";
}

function moveTo(to) {
  state.to = to;
  $("plot").setAttribute("aria-busy", "true");
  clearTimeout(timer);
  timer = setTimeout(() => {
    remember();
    recast();
  }, PAUSE_MS);
}

function mode(name) {
  state.mode = name;
  showControls();
  remember();
  recast();
}

// ---------------------------------------------------------------- the map

async function light(signal) {
  if (!map) return;
  const ids = open.twins.map((twin) => twin.star_id);
  try {
    const asked = `stars${api.query({ star_ids: ids.join(","), limit: ids.length })}`;
    const { stars } = ids.length ? await api.getJson(asked, signal) : { stars: [] };
    open.latents = Object.fromEntries(stars.map((star) => [star.star_id, star.latent]));
    tell($("map-error"), null);
    relight();
  } catch (error) {
    tell($("map-error"), error);
  }
}

function relight() {
  if (!open || !map) return;
  const shown = drawn();
  const twins = open.twins
    .filter((twin) => open.latents[twin.star_id])
    .map((twin) => ({ star_id: twin.star_id, latent: open.latents[twin.star_id], order: shown.indexOf(twin.star_id) }));
  map.light({ label: starLabel(), latent: open.star.latent, twins });
}

/** Show how many stars there are now, and draw the map that the service has now. */
async function recount() {
  card = await api.getJson("model");
  showCatalogue();
  if (map) map.update(await api.getJson("map"));
}

function showCatalogue() {
  const { stars, model } = card;
  const count = stars ? `${stars.toLocaleString("en")} ${stars === 1 ? "star" : "stars"}` : "empty catalogue";
  $("catalogue").textContent = `${count} \u00b7 model ${model.name} ${model.version}`;
  $("hint").textContent = stars ? "" : "The catalogue is empty. Fill it with chemtwin catalogue ingest or POST /embed, or bring a spectrum here and store it.";
}

async function loadMap() {
  try {
    const content = await api.getJson("map");
    map = new LatentMap(content, state.colour, {
      opened: openStar,
      coloured: (name) => {
        state.colour = name;
        remember();
      },
    });
    if (!open) map.draw();
    else await light(opening.signal);
  } catch (error) {
    tell($("map-error"), error);
  }
}

// ---------------------------------------------------------------- controls

function showControls() {
  showChoice(state);
  $("residual").checked = state.residual === "true";
  for (const name of ["recast", "own"]) $(`mode-${name}`).setAttribute("aria-pressed", state.mode === name);
}

async function applyFilters(chosen) {
  if (state.rank !== chosen.rank) state.sort = usualSort(chosen.rank);
  state = { ...state, ...chosen, show: null };
  remember("pushState");
  if (!open) return;
  opening.abort();
  opening = new AbortController();
  try {
    await lookForTwins(opening.signal);
  } catch (error) {
    tell($("twins-error"), error);
  }
}

function button(id, errors, act) {
  const element = typeof id === "string" ? $(id) : id;
  element.onclick = async () => {
    tell($(errors), null);
    element.disabled = true;
    try {
      await act();
    } catch (error) {
      tell($(errors), error);
    } finally {
      element.disabled = false;
    }
  };
}

const fileName = () => (open?.star.star_id ?? "spectrum").replace(/[^A-Za-z0-9+._-]/g, "_");

function buildButtons() {
  for (const element of document.querySelectorAll("[data-recast]")) {
    const body = () => ({ ...source(), to: api.toBody(state.to), residual: residual() });
    button(element, "recast-error", () => api.download(`recast?format=${element.dataset.recast}`, body()));
  }
  for (const element of document.querySelectorAll("[data-twins]")) {
    button(element, "twins-error", () => api.download(twinQuery(element.dataset.twins), open.upload?.file));
  }
  button("plot-png", "recast-error", async () => api.save(await picture($("plot")), `chemtwin-${fileName()}.png`));
  button("map-png", "map-error", async () => api.save(await picture($("map-plot")), `chemtwin-map${open ? `-${fileName()}` : ""}.png`));
  button("copy", "find-error", async () => {
    await navigator.clipboard.writeText(location.href);
    status("The link is in the clipboard.");
  });
  button("store-button", "store-error", async () => {
    const starId = $("store-id").value.trim();
    if (/\s/.test(starId)) throw { message: "an id has no spaces" };
    const stored = await api.postFits(`embed${api.query({ ...open.upload.labels, star_id: starId })}`, open.upload.file);
    await Promise.all([openStar(stored.star_id), recount()]);
    const replaced = stored.replaced ? ["it replaced the one of that id"] : [];
    const news = stored.warnings.filter((text) => !open?.star.warnings.includes(text)); // of what it replaced
    status(`${[`${stored.star_id} is stored`, ...replaced, ...news].join("; ")}.`);
  });
  $("mode-recast").onclick = () => mode("recast");
  $("mode-own").onclick = () => mode("own");
  $("residual").onchange = (event) => {
    state.residual = event.target.checked ? "true" : "";
    remember();
    recast();
  };
}

// ---------------------------------------------------------------- begin

async function begin() {
  keyDialog(() => (card && api.key.get() ? status("The key is in use: try again.") : location.reload()));
  api.on("starting", (error) => status(`The service is starting: ${error.message}\u2026`));
  chooseTwins(applyFilters);
  showControls();
  try {
    card = await api.getJson("model");
  } catch (error) {
    tell($("find-error"), error);
    return;
  }
  status("");
  showCatalogue();
  plot = new SpectrumPlot(card, (view) => {
    state.view = view;
    remember();
  });
  sliders = new Sliders(card, moveTo);
  table = new TwinTable(card, {
    sorted: (sort) => {
      state.sort = sort;
      remember();
      renderTable();
    },
    drawn: (starId, on) => {
      state.show = on ? [...drawn(), starId] : drawn().filter((id) => id !== starId);
      remember();
      renderTable();
      relight();
      recast();
    },
    opened: openStar,
  });
  findStar(openStar);
  uploadSpectrum(card, openUpload);
  buildButtons();
  onTheme(() => {
    plot.draw();
    renderTable();
    map?.draw();
  });
  await Promise.all([state.star ? openState() : openFirst(), loadMap()]);
}

/** Open a star to begin with, unless the reader is faster. */
async function openFirst() {
  const before = opening;
  let first = "";
  if (card.stars) status("Choosing a star to begin with\u2026");
  try {
    first = await firstStar();
  } catch (error) {
    tell($("find-error"), error);
  }
  if (opening !== before) return undefined;
  if (first) {
    state.star = first;
    remember();
    $("hint").textContent = "A star of this catalogue, to begin with. Type another id, or click on the map.";
  }
  return openState();
}

/** The star with the most twins that are the same within noise, those of its own cluster counted twice; "" of no stars. */
async function firstStar() {
  if (!card.stars) return "";
  const { stars } = await api.getJson(`stars?limit=${FIRST_AMONG}`);
  if (!stars.length) return "";
  const { results } = await api.postJson("twins", { star_ids: stars.map((star) => star.star_id), k: DEFAULTS.k });
  const same = (twins) => (twins ?? []).filter((twin) => twin.verdict === "same within noise");
  const merits = results.map(({ twins }, row) => same(twins).reduce((sum, twin) => sum + (twin.cluster && twin.cluster === stars[row].cluster ? 2 : 1), 0));
  return stars[merits.indexOf(Math.max(...merits))].star_id;
}

begin();
