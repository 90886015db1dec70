// Two figures of an evaluation's set: scores of pairs, and the ROC; a threshold moves through both.

import { make, makeSvg, percent } from "./dom.js";

const HEIGHT = 230;
const MARGIN = { left: 44, right: 12, top: 8, bottom: 36 };

/** A figure that is drawn at its own width; `pick` takes the place where one points, 0..1. */
class Figure {
  constructor(title, pick) {
    this.svg = makeSvg("svg", { height: HEIGHT, role: "img" });
    this.root = make("figure", { class: "chart" }, make("figcaption", {}, ...title), this.svg);
    const point = (event) => {
      const { left, width } = this.svg.getBoundingClientRect();
      const inner = width - MARGIN.left - MARGIN.right;
      pick(Math.min(1, Math.max(0, (event.clientX - left - MARGIN.left) / inner)));
    };
    this.svg.addEventListener("pointerdown", (event) => {
      this.svg.setPointerCapture(event.pointerId);
      point(event);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (this.svg.hasPointerCapture(event.pointerId)) point(event);
    });
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  get width() {
    return Math.max(220, this.root.clientWidth);
  }

  x(share) {
    return MARGIN.left + share * (this.width - MARGIN.left - MARGIN.right);
  }

  y(share) {
    return HEIGHT - MARGIN.bottom - share * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }

  /** Return an axis: ticks are [share, text]. */
  axes(across, up, name) {
    const grid = (from, to) => makeSvg("line", { class: "axis", ...from, ...to });
    return [
      ...up.flatMap(([share, text]) => [
        grid({ x1: this.x(0), x2: this.x(1) }, { y1: this.y(share), y2: this.y(share) }),
        makeSvg("text", { x: MARGIN.left - 6, y: this.y(share) + 4, "text-anchor": "end" }, text),
      ]),
      ...across.map(([share, text]) => makeSvg("text",
        { x: this.x(share), y: HEIGHT - MARGIN.bottom + 15, "text-anchor": "middle" }, text)),
      makeSvg("text", { x: this.x(0.5), y: HEIGHT - 4, "text-anchor": "middle" }, name),
    ];
  }

  draw() {
    if (this.root.clientWidth === 0) return; // not on the page, or its view is hidden
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.replaceChildren(...this.parts());
    this.move();
  }
}

/** Histogram of the cosines of same and of different pairs, each as a share of its kind. */
export class Scores extends Figure {
  constructor(histogram, pick) {
    const { edges } = histogram;
    const [low, high] = [edges[0], edges[edges.length - 1]];
    super([make("span", { class: "key same" }), "same pairs  ",
      make("span", { class: "key different" }), "different pairs, by their cosine"],
    (share) => pick(low + share * (high - low)));
    this.histogram = histogram;
    this.place = (cosine) => (cosine - low) / (high - low || 1);
    this.threshold = low;
  }

  parts() {
    const { edges, same, different } = this.histogram;
    const shares = [different, same].map((counts) => {
      const all = counts.reduce((sum, n) => sum + n, 0) || 1;
      return counts.map((n) => n / all);
    });
    const highest = Math.max(...shares.flat()) || 1;
    const shape = (heights) => {
      const steps = heights.flatMap((h, i) => [edges[i], edges[i + 1]].map((edge) =>
        `${this.x(this.place(edge)).toFixed(1)},${this.y(h / highest).toFixed(1)}`));
      return `M${this.x(0)},${this.y(0)}L${steps.join("L")}L${this.x(1)},${this.y(0)}Z`;
    };
    const across = ticks(edges[0], edges[edges.length - 1])
      .map((value) => [this.place(value), String(value)]);
    const up = [0, 0.5, 1].map((share) => [share, percent(Number((share * highest).toFixed(3)))]);
    this.line = makeSvg("line", { class: "at", y1: this.y(0), y2: this.y(1) });
    return [...this.axes(across, up, "cosine of the two features"),
      makeSvg("path", { class: "different", d: shape(shares[0]) }),
      makeSvg("path", { class: "same", d: shape(shares[1]) }), this.line];
  }

  /** Show a threshold. */
  move(point = this.point) {
    this.point = point;
    if (!point || !this.line) return;
    const x = this.x(Math.min(1, Math.max(0, this.place(point.cosine))));
    this.line.setAttribute("x1", x);
    this.line.setAttribute("x2", x);
    this.svg.setAttribute("aria-label", `Histogram of the cosines of same and different pairs; ` +
      `the threshold stands at ${point.cosine.toFixed(3)}`);
  }
}

/** ROC of points {cosine, far, tar}, FAR logarithmic, with bars of TAR's 95 % intervals. */
export class Roc extends Figure {
  constructor(points, different, bars, pick) {
    const decades = Math.max(1, Math.ceil(Math.log10(different) - 1e-9));
    super(["ROC: TAR, same pairs accepted; bars are 95 % intervals"],
      (share) => pick(10 ** (decades * (share - 1))));
    this.points = points;
    this.bars = bars;
    this.decades = decades;
    this.place = (far) => Math.max(0, 1 + Math.log10(Math.max(far, 1e-15)) / decades);
    const shown = points.filter(({ far }) => far > 0);
    const lowest = Math.min(0.95, shown.length ? shown[0].tar : 0, ...(bars?.lower ?? []));
    this.floor = Math.max(0, Math.floor(lowest * 20) / 20);
    this.height = (tar) => Math.max(0, (tar - this.floor) / (1 - this.floor));
  }

  parts() {
    const line = this.points.map(({ far, tar }) =>
      `${this.x(this.place(far)).toFixed(1)},${this.y(this.height(tar)).toFixed(1)}`);
    const steps = line.map((end, i) => {
      const [x, y] = end.split(",");
      return i ? `H${x}V${y}` : `M${x},${y}`;
    });
    const every = Math.ceil(this.decades / 5);
    const across = [];
    for (let power = 0; power <= this.decades; power += every) {
      across.push([1 - power / this.decades, power ? `1e-${power}` : "1"]);
    }
    const up = [0, 0.5, 1].map((share) =>
      [share, percent(Number((this.floor + share * (1 - this.floor)).toFixed(4)))]);
    this.dot = makeSvg("circle", { class: "dot", r: 7 });
    const { far = [], lower = [], upper = [] } = this.bars ?? {};
    return [...this.axes(across, up, "FAR: different pairs accepted"),
      makeSvg("path", { class: "line", d: steps.join("") }),
      ...far.map((rate, i) => makeSvg("line", { class: "error-bar",
        x1: this.x(this.place(rate)), x2: this.x(this.place(rate)),
        y1: this.y(this.height(lower[i])), y2: this.y(this.height(upper[i])) })),
      this.dot];
  }

  /** Show a point. */
  move(point = this.point) {
    this.point = point;
    if (!point || !this.dot) return;
    this.dot.setAttribute("cx", this.x(this.place(point.far)));
    this.dot.setAttribute("cy", this.y(this.height(point.tar)));
    this.svg.setAttribute("aria-label", `ROC; at the threshold TAR is ${percent(point.tar)} ` +
      `and FAR ${percent(point.far)}`);
  }
}

function ticks(low, high) {
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2, 5].find((size) => (high - low) / size <= 6) ?? 10;
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) {
    found.push(Number((i * step).toFixed(2)));
  }
  return found;
}
