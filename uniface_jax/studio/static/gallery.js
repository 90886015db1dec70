// A face looked for in the gallery: who it is, or unknown, and the nearest rows.

import { Refused, search } from "./api.js";
import { announce, byId, count, make, picture } from "./dom.js";
import { Photograph } from "./photograph.js";

const UNKNOWN = "Unknown";

/** The view of a search. */
export class Search {
  constructor(gallery, limits, threshold) {
    this.gallery = gallery;
    this.threshold = threshold;
    this.answer = byId("answer");
    this.list = byId("nearest");
    this.asked = 0;
    this.nearest = null;
    if (!gallery) {
      byId("gallery").textContent = "This studio was started without a gallery. " +
        "Start it with --gallery=FOLDER, which python -m uniface_jax.gallery build makes.";
      return;
    }
    byId("gallery").textContent = `${gallery.name}: ${count(gallery.faces)} faces`;
    this.photograph = new Photograph("asked", "Photograph", limits, () => this.search());
  }

  async search() {
    const face = this.photograph?.face ?? null;
    const asked = (this.asked += 1);
    this.nearest = null;
    this.answer.hidden = true;
    this.list.replaceChildren();
    if (face === null) return;
    try {
      const found = await search(face.feature);
      if (asked !== this.asked) return;
      this.nearest = found.nearest;
      this.show();
      this.answer.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (asked !== this.asked) return;
      this.answer.replaceChildren(make("p", { class: "error" }, error.message));
      this.answer.hidden = false;
    }
  }

  /** Show the newest answer against the threshold; nothing where there is none. */
  show() {
    if (this.nearest === null) return;
    const [best] = this.nearest;
    const decided = best && this.threshold.decide(best.cosine, best.person || best.name, UNKNOWN);
    const lines = [];
    if (decided) lines.push(make("p", { class: `decision ${decided[1]}` }, decided[0]));
    if (!best) lines.push(make("p", { class: "decision" }, "The gallery is empty."));
    else lines.push(make("p", { class: "number" }, this.said(best)));
    if (decided && this.threshold.chosen?.searches) {
      lines.push(make("p", { class: "soft" }, this.threshold.chosen.searches));
    }
    this.answer.replaceChildren(...lines);
    this.answer.hidden = false;
    announce(this.answer.textContent);
    this.list.replaceChildren(...this.nearest.map((row) => this.row(row)));
  }

  said(best) {
    const limit = this.threshold.cosine;
    const cosine = best.cosine.toFixed(4);
    if (limit === null) return `The nearest face has the cosine ${cosine}.`;
    return best.cosine >= limit
      ? `The nearest face has the cosine ${cosine}, at least ${limit.toFixed(3)}.`
      : `Not even the nearest face reaches ${limit.toFixed(3)}: its cosine is ${cosine}.`;
  }

  row(row) {
    const decided = this.threshold.decide(row.cosine, "reaches the threshold", "below");
    return make("li", { class: decided?.[1] === "good" ? "reached" : "" },
      picture(row.picture, row.person || row.name),
      make("b", {}, row.person || row.name),
      ...(row.person ? [make("span", { class: "soft" }, row.name)] : []),
      make("div", { class: "number" }, `${row.cosine.toFixed(4)} · #${row.id}`),
      ...(decided ? [make("div", { class: decided[1] }, decided[0])] : []));
  }
}
