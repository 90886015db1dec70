// The studio: what the server has is asked for once, and each view is shown by its link.

import { readState, Refused, takeToken } from "./api.js";
import { Comparison } from "./comparison.js";
import { byId } from "./dom.js";
import { Evaluation } from "./evaluation.js";
import { Search } from "./gallery.js";
import { takePasted } from "./photograph.js";
import { Threshold } from "./threshold.js";

const VIEWS = ["compare", "search", "evaluation"];

let last = VIEWS[0];

/** Return the view that the address names; another one, as of the skip link, leaves the last. */
function view() {
  const named = location.hash.slice(1);
  if (VIEWS.includes(named)) last = named;
  return last;
}

async function begin() {
  takeToken();
  window.addEventListener("hashchange", () => {
    if (takeToken()) location.reload();
  });
  byId("host").textContent = location.host;
  // A file that misses its place would else replace the page.
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => event.preventDefault());
  }
  const state = await readState();
  byId("model").textContent = state.model.name;
  byId("description").textContent = `${state.model.name}: ${state.model.description}`;
  const changed = () => {
    comparison.show();
    search.show();
  };
  const threshold = new Threshold(state.choices, () => changed());
  const comparison = new Comparison(state.limits, threshold);
  const search = new Search(state.gallery, state.limits, threshold);
  const evaluation = new Evaluation(state.evaluation, threshold);
  takePasted(() => ({ compare: comparison.place, search: search.photograph })[view()]);
  const show = () => {
    const shown = view();
    for (const name of VIEWS) byId(`${name}-view`).hidden = name !== shown;
    const undecided = shown === "evaluation" || (shown === "search" && !state.gallery);
    byId("threshold").hidden = undecided;
    byId(`${shown}-threshold`)?.append(byId("threshold"));
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${byId(`${shown}-title`).textContent} · uniface studio`;
    if (shown === "evaluation") evaluation.begin();
  };
  window.addEventListener("hashchange", show);
  show();
  document.body.dataset.ready = "true";
}

begin().catch((error) => {
  if (!(error instanceof Refused)) throw error;
  byId("failed").textContent = error.message;
  byId("failed").hidden = false;
});
