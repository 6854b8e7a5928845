// A star by its id, with completion: a combobox as the ARIA practices describe it.

import { getJson, query } from "./api.js";
import { $, make, tell, withUnit } from "./words.js";

const PAUSE_MS = 120;

/** `opened(star_id)` is called with the chosen star. */
export function findStar(opened) {
  const input = $("star");
  const list = $("suggestions");
  let timer;
  let asked;

  const settle = () => {
    asked?.abort();
    clearTimeout(timer);
  };
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (starId) => {
    settle();
    input.value = starId;
    close();
    opened(starId);
  };
  const point = (option) => {
    settle(); // a list that came later would drop the choice
    for (const other of list.children) other.setAttribute("aria-selected", other === option);
    input.setAttribute("aria-activedescendant", option?.id ?? "");
    option?.scrollIntoView({ block: "nearest" });
  };
  const option = (star, index) =>
    make("li", {
      id: `suggestion-${index}`, role: "option", dataset: { star: star.star_id }, attributes: { "aria-selected": "false" },
      onmousedown: (event) => { event.preventDefault(); choose(star.star_id); },
    }, make("span", {}, star.star_id), make("small", {}, `${withUnit("teff", star.teff)} \u00b7 ${withUnit("logg", star.logg)} \u00b7 ${withUnit("fe_h", star.fe_h)}`));

  const complete = async () => {
    asked?.abort();
    const prefix = input.value.trim();
    if (!prefix) return close();
    asked = new AbortController();
    try {
      const { stars } = await getJson(`stars${query({ prefix, limit: 8 })}`, asked.signal);
      tell($("find-error"), null);
      list.replaceChildren(...stars.map(option));
      list.hidden = !stars.length;
      input.setAttribute("aria-expanded", String(stars.length > 0));
      if (!stars.length) tell($("find-error"), { message: `no id begins with ${prefix} (capitals matter)` });
    } catch (error) {
      if (error.name !== "AbortError") close();
      tell($("find-error"), error);
    }
    return undefined;
  };

  input.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(complete, PAUSE_MS);
  };
  input.onfocus = () => input.select();
  input.onblur = close;
  input.onkeydown = (event) => {
    const options = [...list.children];
    const at = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown" && list.hidden) complete();
    else if (event.key === "ArrowDown") point(options[(at + 1) % options.length]);
    else if (event.key === "ArrowUp") point(options[(at - 1 + options.length) % options.length]);
    else if (event.key === "Enter" && !list.hidden && at >= 0) choose(options[at].dataset.star);
    else return;
    event.preventDefault();
  };
  $("find-form").onsubmit = (event) => {
    event.preventDefault();
    if (input.value.trim()) choose(input.value.trim());
  };
}
