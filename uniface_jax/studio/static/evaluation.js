// An evaluation's sets: what each threshold costs, and the pairs that are hardest.

import { readSet, Refused } from "./api.js";
import { Roc, Scores } from "./charts.js";
import { byId, count, make, percent, picture } from "./dom.js";

/** The view of an evaluation; what is in it is asked for when it is first looked at. */
export class Evaluation {
  constructor(evaluation, threshold) {
    this.sets = evaluation?.sets ?? [];
    this.threshold = threshold;
    this.root = byId("measured");
    this.asked = 0;
    this.begun = false;
    if (!evaluation) {
      byId("no-evaluation").textContent = "This studio was started without an evaluation. " +
        "Start it with --evaluation=FOLDER, which python -m uniface_jax.evaluate --output makes.";
      byId("no-evaluation").hidden = false;
    }
  }

  /** Ask for the first set, once. */
  begin() {
    if (this.begun || !this.sets.length) return;
    this.begun = true;
    this.root.hidden = false;
    this.select = make("select", { id: "set" },
      ...this.sets.map((name, i) => make("option", { value: i }, name)));
    this.select.addEventListener("change", () => this.read());
    this.body = make("div");
    this.root.append(make("div", { class: "row" },
      make("label", { for: "set" }, "Measured on"), this.select), this.body);
    this.read();
  }

  async read() {
    const asked = (this.asked += 1);
    this.root.setAttribute("aria-busy", "true");
    try {
      const set = await readSet(this.select.value);
      if (asked === this.asked) this.show(set);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (asked !== this.asked) return;
      this.body.replaceChildren(make("p", { class: "error", role: "alert" }, error.message));
    } finally {
      if (asked === this.asked) this.root.setAttribute("aria-busy", "false");
    }
  }

  show(set) {
    this.set = set;
    const parts = set.notes.map((note) => make("p", { class: "soft" }, note));
    this.points = set.points.cosine.map((cosine, i) => ({ cosine,
      accepted: set.points.same[i], wrong: set.points.different[i],
      tar: set.points.same[i] / set.same, far: set.points.different[i] / set.different }));
    if (this.points.length) parts.push(this.curves(set));
    else parts.push(make("p", {}, "This set has no curve of pairs."));
    this.cards = [];
    if (set.pairs) {
      parts.push(...this.hardest("Hardest pairs of one person", set.pairs.same, true),
        ...this.hardest("Hardest pairs of different people", set.pairs.different, false));
    }
    this.body.replaceChildren(...parts);
    for (const figure of this.figures ?? []) figure.draw();
    if (this.points.length) this.take(this.nearest(this.threshold.cosine ?? set.start));
  }

  curves(set) {
    const [high, low] = [this.points[0], this.points[this.points.length - 1]];
    this.slider = make("input", { id: "at", type: "range", step: 0.001,
      min: (Math.floor(low.cosine * 1000) / 1000).toFixed(3),
      max: (Math.ceil(high.cosine * 1000) / 1000).toFixed(3) });
    this.slider.addEventListener("input", () =>
      this.take(this.nearest(Number(this.slider.value)), false));
    this.shown = make("output", { for: "at" });
    this.tiles = make("div", { class: "tiles" });
    const use = make("button", { type: "button", class: "main" }, "Decide by this threshold");
    const used = make("span", { class: "soft", role: "status" });
    use.addEventListener("click", () => {
      const { cosine, accepted, wrong } = this.points[this.at];
      const { name, same, different } = this.set;
      this.threshold.take(cosine, `From the cosine ${cosine.toFixed(3)} on, two faces count as ` +
        `one person's. Of the ${count(different)} pairs of different people of ${name} ` +
        `${count(wrong)} are accepted so, and of the ${count(same)} pairs of one person ` +
        `${count(same - accepted)} are missed.`);
      used.textContent = `Compare and Search decide by ${cosine.toFixed(3)} now.`;
    });
    this.figures = [new Roc(this.points, set.different, set.bars,
      (far) => this.take(this.atFar(far)))];
    if (set.histogram) {
      this.figures.unshift(new Scores(set.histogram, (cosine) => this.take(this.nearest(cosine))));
    }
    return make("div", { class: "card" },
      make("div", { class: "row" }, make("label", { for: "at" }, "Threshold"), this.shown,
        this.slider),
      this.tiles,
      make("div", { class: "row" }, use, used),
      make("div", { class: "charts" }, ...this.figures.map((figure) => figure.root)));
  }

  /** Return the number of the point that is nearest to a cosine. */
  nearest(cosine) {
    let best = 0;
    this.points.forEach((point, i) => {
      if (Math.abs(point.cosine - cosine) < Math.abs(this.points[best].cosine - cosine)) best = i;
    });
    return best;
  }

  /** Return the number of the last point whose FAR is not above one. */
  atFar(far) {
    const above = this.points.findIndex((point) => point.far > far * 1.0001);
    return above < 0 ? this.points.length - 1 : Math.max(0, above - 1);
  }

  /** Move the threshold to a point, and the slider, unless it was that which was moved. */
  take(at, slide = true) {
    this.at = at;
    const point = this.points[at];
    const missed = this.set.same - point.accepted;
    if (slide) this.slider.value = point.cosine;
    this.shown.textContent = point.cosine.toFixed(3);
    this.slider.setAttribute("aria-valuetext", `cosine ${point.cosine.toFixed(3)}: TAR ` +
      `${percent(point.tar)}, FAR ${percent(point.far)}, ${count(missed)} missed`);
    const every = count(this.set.different);
    const oneIn = point.wrong ? `: 1 in ${count(this.set.different / point.wrong)}`
      : `; rates below 1 in ${every} cannot be told`;
    this.tiles.replaceChildren(
      tile("TAR", percent(point.tar), `${count(point.accepted)} of ${count(this.set.same)} same ` +
        "pairs accepted"),
      tile("FAR", percent(point.far), `${count(point.wrong)} of ${every} different pairs ` +
        `accepted${oneIn}`),
      tile("Missed", count(missed), "same pairs taken for different people"));
    for (const figure of this.figures) figure.move(point);
    for (const card of this.cards) card(point.cosine);
  }

  hardest(title, pairs, same) {
    if (!pairs.length) return [];
    const items = pairs.map((pair) => {
      const judged = make("span", {});
      this.cards.push((cosine) => {
        const accepted = pair.score >= cosine;
        judged.textContent = same === accepted ? "right" : same ? "missed" : "accepted wrongly";
        judged.className = same === accepted ? "" : "wrong";
      });
      return make("li", {},
        make("div", { class: "faces" },
          ...pair.sides.map((side) => picture(side.picture, side.label))),
        make("b", { class: "number" }, pair.score.toFixed(4)), " ", judged,
        ...pair.sides.map((side) => make("div", {}, side.label)));
    });
    return [make("h3", {}, title), make("ul", { class: "hard" }, ...items)];
  }
}

function tile(name, value, explained) {
  return make("div", { class: "tile" }, make("span", {}, name), make("b", {}, value),
    make("span", {}, explained));
}
