// A place for one photograph: chosen, dropped or pasted; its faces boxed, one of them taken.

import { findFaces, Refused } from "./api.js";
import { byId, draw, make, makeSvg, picture, shownName } from "./dom.js";

const TYPES = ".jpg,.jpeg,.png,.webp,.bmp,.pgm,.ppm,image/jpeg,image/png,image/webp,image/bmp";

/** Photograph in the element of an id. `face` is the chosen one, or null; onChange is told. */
export class Photograph {
  constructor(id, title, limits, onChange) {
    this.face = null;
    this.title = title;
    this.limits = limits;
    this.onChange = onChange;
    this.loading = null;
    this.input = make("input", { type: "file", accept: TYPES, class: "unseen",
      "aria-describedby": `${id}-said` });
    this.asking = make("b", {}, title);
    this.hint = make("span", { class: "soft" });
    this.drop = make("label", { class: "drop" }, this.input, this.asking, this.hint);
    this.said = make("p", { id: `${id}-said`, role: "status", class: "soft" });
    this.refusal = make("p", { class: "error", role: "alert" });
    this.refusal.hidden = true;
    this.found = make("div");
    this.root = byId(id);
    this.root.className = "photo";
    this.root.append(make("div", { class: "card" },
      this.drop, this.refusal, this.found, this.said));
    this.setState("empty");
    this.listen();
  }

  listen() {
    this.input.addEventListener("change", () => {
      if (this.input.files.length) this.take(this.input.files[0]);
      this.input.value = ""; // the same file may be chosen again
    });
    for (const kind of ["dragenter", "dragover"]) {
      this.root.addEventListener(kind, (event) => {
        event.preventDefault();
        this.drop.classList.add("over");
      });
    }
    this.root.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.take(file);
    });
  }

  /** Send a file to the server and show its faces; an answer to an earlier one is not awaited. */
  async take(file) {
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    this.clear("busy");
    const name = shownName(file.name);
    this.asking.textContent = "Looking for faces …";
    this.hint.textContent = name;
    try {
      if (file.size > this.limits.bytes) {
        const [size, most] = [file.size, this.limits.bytes].map((n) => (n / 1e6).toFixed(1));
        throw new Refused(`The file has ${size} MB; at most ${most} MB are taken.`);
      }
      const answer = await findFaces(file, loading.signal);
      if (loading.signal.aborted) return;
      await this.show(name, answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refused)) throw error;
      this.refuse(name, error.message);
    } finally {
      if (this.loading === loading) this.loading = null;
    }
  }

  clear(state) {
    this.found.replaceChildren();
    this.said.textContent = "";
    this.refusal.hidden = true;
    this.setState(state);
    this.choose(null);
  }

  setState(state) {
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(state === "busy"));
    if (state === "empty" || state === "refused") {
      this.asking.textContent = this.title;
      this.hint.replaceChildren("Choose a file",
        make("span", { class: "fine" }, ", drop it here, or paste it"));
    }
  }

  refuse(name, message) {
    this.setState("refused");
    this.refusal.textContent = `${name}: ${message}`;
    this.refusal.hidden = false;
  }

  async show(name, answer) {
    const canvas = make("canvas", { role: "img", "aria-label": `${this.title}: ${name}` });
    await draw(canvas, answer.preview);
    const boxes = makeSvg("svg", { viewBox: `0 0 ${answer.width} ${answer.height}`,
      preserveAspectRatio: "none", "aria-hidden": "true" });
    this.boxes = answer.faces.map((face, number) => {
      const [x, y, width, height] = face.box;
      const box = makeSvg("rect", { x, y, width, height });
      box.addEventListener("click", () => this.pick(answer.faces, number));
      return box;
    });
    boxes.append(...this.boxes);
    this.found.replaceChildren(make("div", { class: "picture" }, canvas, boxes));
    this.asking.textContent = "Choose another photograph";
    this.hint.textContent = name;
    const size = `${answer.width} × ${answer.height} pixels`;
    if (!answer.faces.length) {
      this.refuse(name, "No face found.");
      this.said.textContent = size;
      return;
    }
    this.offer(answer.faces);
    const faces = answer.faces.length === 1 ? "One face" : `${answer.faces.length} faces`;
    const more = answer.faces.length === this.limits.faces ? ", and no more are taken" : "";
    const which = answer.faces.length > 1 ? "; choose one" : "";
    this.said.textContent = `${faces}${more}${which} · ${size}`;
    this.setState("ready");
    this.pick(answer.faces, 0);
  }

  offer(faces) {
    this.buttons = faces.map((face, number) => {
      const label = `Face ${number + 1}`;
      const score = face.score === null ? "" : `, found with score ${face.score.toFixed(2)}`;
      const button = make("button", { type: "button",
        "aria-label": `${label} of ${faces.length}${score}` },
      picture(face.crop, `Aligned crop of face ${number + 1}`), label);
      button.addEventListener("click", () => this.pick(faces, number));
      return button;
    });
    this.found.append(make("div", { class: "faces", role: "group",
      "aria-label": `${this.title}: aligned faces` }, ...this.buttons));
  }

  pick(faces, number) {
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === number));
    this.boxes.forEach((box, i) => box.classList.toggle("chosen", i === number));
    this.choose(faces[number]);
  }

  choose(face) {
    this.face = face;
    this.onChange();
  }
}

/** Give a pasted image to the photograph that `place` returns, or to none. */
export function takePasted(place) {
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    const photograph = file && place();
    if (!photograph) return;
    event.preventDefault();
    photograph.take(file);
  });
}
