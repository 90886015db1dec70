// The threshold that decides everywhere on the page: at a FAR of the evaluation, or one's own.

import { byId, make } from "./dom.js";

const OWN = "own";
const OWN_MEANING = "Two faces count as one person's from this cosine on. How often that is wrong, " +
  "an evaluation tells: see Evaluation.";
const NO_MEANING = "Without an evaluation of this model (--evaluation=FOLDER) there is no " +
  "threshold whose error is known.";

/** Threshold chosen by the user; `cosine` is a number, or null where there is none. */
export class Threshold {
  constructor(choices, onChange) {
    this.choices = choices;
    this.onChange = onChange;
    this.taken = null; // of the evaluation: a cosine, and what it means
    this.select = byId("choice");
    this.range = byId("cosine");
    this.select.append(
      ...choices.map((choice, i) => make("option", { value: i }, choice.label)),
      ...(choices.length ? [] : [make("option", { value: "" }, "No threshold: cosines alone")]),
      make("option", { value: OWN }, "A cosine of my own"),
    );
    this.range.value = choices.length ? choices[0].cosine : 0.3;
    const least = choices.findIndex((choice) => choice.first);
    if (least >= 0) this.select.value = String(least);
    this.select.addEventListener("change", () => this.changed());
    this.range.addEventListener("input", () => {
      this.taken = null;
      this.changed();
    });
    this.show();
  }

  get chosen() {
    return this.choices[Number(this.select.value)] ?? null;
  }

  get cosine() {
    if (this.select.value === OWN) return this.taken?.cosine ?? Number(this.range.value);
    return this.select.value === "" ? null : this.chosen.cosine;
  }

  /** Take a cosine of the evaluation, with what it means there. */
  take(cosine, meaning) {
    this.taken = { cosine, meaning };
    this.select.value = OWN;
    this.range.value = cosine;
    this.changed();
  }

  changed() {
    this.show();
    this.onChange();
  }

  show() {
    const own = this.select.value === OWN;
    byId("own").hidden = !own;
    byId("cosine-shown").textContent = Number(this.range.value).toFixed(3);
    byId("meaning").textContent = own ? this.taken?.meaning ?? OWN_MEANING
      : this.chosen?.meaning ?? NO_MEANING;
  }

  /** Return what is said of a cosine: [words, class], or null without a threshold. */
  decide(cosine, yes, no) {
    if (this.cosine === null) return null;
    return cosine >= this.cosine ? [yes, "good"] : [no, "bad"];
  }
}
