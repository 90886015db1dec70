// Two faces compared: crops, cosine, decision.

import { compare, Refused } from "./api.js";
import { announce, byId, make, makeSvg, picture } from "./dom.js";
import { Photograph } from "./photograph.js";

/** The view of two photographs. */
export class Comparison {
  constructor(limits, threshold) {
    this.threshold = threshold;
    this.root = byId("verdict");
    this.cosine = null;
    this.asked = 0;
    this.photographs = [];
    const changed = () => this.compare();
    this.photographs.push(new Photograph("first", "First photograph", limits, changed));
    this.photographs.push(new Photograph("second", "Second photograph", limits, changed));
  }

  /** Return the photograph that a pasted image goes to: the first that has none. */
  get place() {
    const [first, second] = this.photographs;
    return first.root.dataset.state === "ready" ? second : first;
  }

  async compare() {
    const faces = this.photographs.map((photograph) => photograph.face);
    const asked = (this.asked += 1);
    this.root.hidden = true;
    if (faces.length < 2 || faces.includes(null)) return;
    try {
      const answer = await compare(faces[0].feature, faces[1].feature);
      if (asked !== this.asked) return;
      this.cosine = answer.cosine;
      this.faces = faces;
      this.show();
      this.root.scrollIntoView({ block: "nearest" }); // on a phone it is below the screen
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (asked !== this.asked) return;
      this.root.replaceChildren(make("p", { class: "error" }, error.message));
      this.root.hidden = false;
    }
  }

  /** Show the newest cosine against the threshold; nothing where there is none. */
  show() {
    if (this.faces === undefined || this.photographs.some((each) => each.face === null)) return;
    const { cosine, threshold } = this;
    const decided = threshold.decide(cosine, "One person, by this threshold",
      "Different people, by this threshold");
    const limit = threshold.cosine;
    const against = limit === null ? ""
      : cosine >= limit ? `, at least ${limit.toFixed(3)}` : `, below ${limit.toFixed(3)}`;
    this.root.replaceChildren(make("div", { class: "verdict" },
      make("div", { class: "crops" },
        picture(this.faces[0].crop, "Aligned face of the first photograph"),
        picture(this.faces[1].crop, "Aligned face of the second photograph")),
      make("div", { class: "said" },
        ...(decided ? [make("p", { class: `decision ${decided[1]}` },
          `${decided[1] === "good" ? "✓" : "✗"} ${decided[0]}`)] : []),
        make("p", { class: "number" }, `Cosine ${cosine.toFixed(4)}${against}`),
        make("div", { class: "scale" }, scale(cosine, limit))),
    ));
    this.root.hidden = false;
    announce(`${decided ? `${decided[0]}: c` : "C"}osine ${cosine.toFixed(3)}${against}`);
  }
}

/** Return a line from -1 to 1 with the cosine as a dot and the threshold as a mark. */
function scale(cosine, limit) {
  const x = (value) => `${(Math.min(1, Math.max(-1, value)) + 1) * 50}%`;
  const text = { y: 30, "font-size": 11, fill: "currentColor" };
  const marks = [
    makeSvg("line", { x1: "0%", x2: "100%", y1: 10, y2: 10, stroke: "currentColor",
      "stroke-opacity": 0.3, "stroke-width": 4, "stroke-linecap": "round" }),
    makeSvg("text", { ...text, x: "0%" }, "-1"),
    makeSvg("text", { ...text, x: "100%", "text-anchor": "end" }, "1"),
  ];
  if (limit !== null) {
    marks.push(
      makeSvg("line", { x1: x(limit), x2: x(limit), y1: 1, y2: 19, stroke: "currentColor",
        "stroke-width": 2 }),
      makeSvg("text", { ...text, x: x(limit), "text-anchor": "middle" },
        `threshold ${limit.toFixed(3)}`),
    );
  }
  marks.push(makeSvg("circle", { cx: x(cosine), cy: 10, r: 7, fill: "var(--mark)" }));
  return makeSvg("svg", { "aria-hidden": "true" }, ...marks);
}
